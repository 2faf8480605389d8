"""The metric of code: does the final program pass the task's tests."""

import re
from collections.abc import Sequence

from collabllm.messages import Message
from collabllm.rewards.extraction import find_code
from collabllm.rewards.registry import (
    MetricMissingError,
    MetricTools,
    NotApplicableError,
    last_reply,
)
from collabllm.rewards.sandbox.run import arun_program
from collabllm.tasks import Task

_RUN_UNITTEST = """
import unittest as _unittest
_result = _unittest.TextTestRunner(verbosity=0).run(
    _unittest.defaultTestLoader.loadTestsFromTestCase(TestCases)
)
assert _result.testsRun and _result.wasSuccessful()
"""


async def pass_rate(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Run the last reply's code against `metadata["test"]`: 1 when every test passes, else 0.

    The tests are plain statements, a function `check(candidate)` (with `metadata["entry_point"]`)
    or a unittest class `TestCases`, as in BigCodeBench. The code is the last fenced block, or the
    whole reply. The mean over conversations is the pass rate.
    """
    test = task.metadata.get("test")
    if not isinstance(test, str) or not test.strip():
        raise NotApplicableError("the task has no tests (single_turn_metadata.test)")
    reply = last_reply(conversation)
    program = "\n\n".join([find_code(reply) or reply, test, _start_tests(test, task)])
    result = await arun_program(program, allow_unsafe=tools.allow_unsafe_code)
    return float(result.finished)


def _start_tests(test: str, task: Task) -> str:
    if re.search(r"^class TestCases\b", test, re.MULTILINE):
        return _RUN_UNITTEST
    if re.search(r"^def check\(", test, re.MULTILINE):
        entry_point = task.metadata.get("entry_point")
        if not entry_point:
            raise MetricMissingError("the tests need single_turn_metadata.entry_point")
        return f"check({entry_point})"
    return ""
