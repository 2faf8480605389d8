"""The metric of code: does the final program pass the task's tests."""

import ast
import asyncio
from collections.abc import Sequence

from collabllm.event_loop import run_blocking
from collabllm.messages import Message
from collabllm.rewards.extraction import find_code
from collabllm.rewards.program_names import defined_names, imported_libraries, wanted_by
from collabllm.rewards.registry import (
    TAMPERED,
    MetricMissingError,
    MetricTools,
    MetricValue,
    NotApplicableError,
    metric,
)
from collabllm.rewards.sandbox.run import slots
from collabllm.rewards.sandbox.verdict import examine
from collabllm.tasks import Task


@metric("pass_rate", needs={"sandbox", "tests"})
async def pass_rate(
    conversation: Sequence[Message], task: Task, tools: MetricTools
) -> float | MetricValue:
    """Run the assistant's program against `metadata["test"]`: 1 when every test passes, else 0.

    The tests are plain statements, functions `test_…`, a function `check(candidate)` (with
    `metadata["entry_point"]`) or unittest classes, as in BigCodeBench. The program is the last
    one of the conversation that defines what the tests call. A program that makes tests pass
    otherwise than by being right gets 0, marked as tampered. Where the task's own solution does
    not pass, there is no value.
    """
    test = tests_of_task(task)
    if not test:
        raise NotApplicableError("the task has no tests (single_turn_metadata.test)")
    program = find_program(conversation, wanted_by(task.metadata))
    async with slots(asyncio.get_running_loop()):
        verdict = await run_blocking(
            lambda: examine(
                program,
                test,
                str(task.metadata.get("entry_point") or ""),
                reference=find_reference(task),
                libraries=_named_libraries(task, test),
                allow_unsafe=tools.allow_unsafe_code,
            )
        )
    if verdict.outcome == "missing":
        raise MetricMissingError(verdict.reason)
    if verdict.outcome == "tampered":
        return MetricValue(0.0, f"{TAMPERED}: {verdict.reason}")
    return float(verdict.outcome == "passed")


def find_program(conversation: Sequence[Message], names: set[str]) -> str:
    """Return the last program of the assistant that defines `names`, else its last code.

    Raises:
        MetricMissingError: If the assistant said nothing.
    """
    replies = [message["content"] for message in conversation if message["role"] == "assistant"]
    if not replies:
        raise MetricMissingError("the assistant said nothing")
    programs = [find_code(reply, names) or reply for reply in reversed(replies)]
    for program in programs:
        if names and defined_names(program) & names:
            return program
    return next((program for program in programs if _is_python(program)), programs[0])


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def tests_of_task(task: Task) -> str:
    """Return the tests of a task, or "" where it has none."""
    test = task.metadata.get("test")
    return test if isinstance(test, str) and test.strip() else ""


def find_reference(task: Task) -> str | None:
    """Return the task's own program, where its completion has one that the tests could call."""
    names = wanted_by(task.metadata)
    solution = find_code(task.single_turn_completion, names) or task.single_turn_completion
    return solution if defined_names(solution) & names else None


def _named_libraries(task: Task, test: str) -> set[str]:
    """Return the libraries that a task names: its list, and the imports of tests and solution."""
    libraries = task.metadata.get("libs") or []
    if isinstance(libraries, str):  # BigCodeBench writes a list as text
        libraries = ast.literal_eval(libraries) if libraries.startswith("[") else [libraries]
    solution = task.single_turn_completion
    named = {*libraries, *imported_libraries(test)}
    return named | imported_libraries(find_code(solution) or solution)
