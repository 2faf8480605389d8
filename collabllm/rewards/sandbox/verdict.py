"""Does a program pass its tests? The verdict stays with processes that the program cannot reach."""

import ast
import os
import random
import re
import secrets
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from collabllm.rewards.program_names import wanted_names
from collabllm.rewards.sandbox.canaries import MixedTests, is_unittest, mix_canaries
from collabllm.rewards.sandbox.process import Process, SandboxFailedError, watch
from collabllm.rewards.sandbox.run import choose_tier
from collabllm.rewards.sandbox.tier import Limits, Tier

_KILLED = (9, 128 + 9)
Outcome = Literal["passed", "failed", "tampered", "missing"]


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed; `missing` where that could not be found out. `reason` in words."""

    outcome: Outcome
    reason: str = ""


def examine(
    program: str,
    test: str,
    entry_point: str = "",
    *,
    libraries: Collection[str] | None = None,
    limits: Limits | None = None,
    allow_unsafe: bool = False,
    tier: Tier | None = None,
) -> Verdict:
    """Run a program against tests.

    Statements and `check(candidate)` stay in a process of their own, which asks the program's
    process for values. A unittest file runs in the program's process, among canaries.

    Args:
        program: Source text, untrusted.
        test: Statements, functions `test_…`, a function `check(candidate)`, or unittest classes.
        entry_point: What `check` is called with.
        libraries: Those that the task names, if it names any. A program that lacks another one
            has failed; without names it is missing.
        limits: Defaults of `Limits`; `wall_s` is for the whole.
        allow_unsafe: Where the system offers no isolation, run with limits alone.
        tier: Defaults to the best that this system has.

    Raises:
        SandboxUnavailableError: If there is no isolation and `allow_unsafe` is False.
    """
    limits = limits or Limits()
    tier = tier or choose_tier(allow_unsafe=allow_unsafe)
    try:
        if is_unittest(test):
            mixed = mix_canaries(test, random.Random(secrets.randbits(64)))
            return _examine_together(program, mixed, libraries, limits, tier)
        return _examine_apart(program, test, entry_point, libraries, limits, tier)
    except (SandboxFailedError, ValueError) as error:
        return Verdict("missing", str(error))


def _examine_apart(
    program: str,
    test: str,
    entry_point: str,
    libraries: Collection[str] | None,
    limits: Limits,
    tier: Tier,
) -> Verdict:
    start = _start_of_tests(test, entry_point)
    questions_out, questions_in = os.pipe()
    answers_out, answers_in = os.pipe()
    asked: dict[str, Any] = {"program": program, "names": sorted(wanted_names(test, entry_point))}
    asked |= {"read_fd": questions_out, "write_fd": answers_in}
    asking = {"test": test, "start": start, "read_fd": answers_out, "write_fd": questions_in}
    candidate = Process(tier, "candidate", asked, limits, (questions_out, answers_in))
    examiner = Process(tier, "examiner", asking, limits, (answers_out, questions_in))
    pipes = [questions_out, questions_in, answers_out, answers_in]
    try:
        with candidate, examiner:
            while pipes:  # or the two would not see each other hang up
                os.close(pipes.pop())
            in_time = watch(examiner, [candidate], limits.wall_s)
            said = list(examiner.lines())
            list(candidate.lines())
    finally:
        while pipes:
            os.close(pipes.pop())
    if not in_time:
        return Verdict("failed", f"not ready after {limits.wall_s:g} s")
    if not said:  # what the program sends can fill the tests' memory, but not end them otherwise
        killed = examiner.ended_by or abs(examiner.popen.returncode) in _KILLED
        return Verdict("failed" if killed else "missing", "the tests' process ended")
    outcome, reason = said[0]["verdict"], said[0]["reason"]
    if outcome == "lacks":
        return _judge_lack(reason, program, libraries)
    if outcome == "failed" and candidate.ended_by:
        reason = f"more than its share of {candidate.ended_by}"
    return Verdict(outcome, reason)


def _examine_together(
    program: str,
    mixed: MixedTests,
    libraries: Collection[str] | None,
    limits: Limits,
    tier: Tier,
) -> Verdict:
    task: dict[str, Any] = {"program": program, "test": mixed.source, "tests": mixed.tests}
    task["may_skip"] = "skip" in mixed.source
    with Process(tier, "together", task, limits) as process:
        in_time = watch(process, [], limits.wall_s)
        said = [line for line in process.lines() if isinstance(line, dict)]
    results = _results(said, mixed.tests)
    passed = {name for name, line in results.items() if line.get("passed") is True}
    if passed >= set(mixed.tests) - mixed.canaries:
        canaries = [line for name, line in results.items() if name in mixed.canaries]
        if any(line.get("passed") and not line.get("skipped") for line in canaries):
            return Verdict("tampered", "a test that must fail has passed")
        if any(not line.get("passed") for line in canaries):
            return Verdict("passed")
        return Verdict("missing", "the tests were skipped")
    if process.ended_by or not in_time:
        return Verdict("failed", f"more than its share of {process.ended_by or 'time'}")
    return _why_failed(said, results, mixed, program, libraries)


def _results(said: list[dict[str, Any]], tests: list[str]) -> dict[str, dict[str, Any]]:
    """Return what was said of each test; one that was spoken of twice has failed."""
    counts = Counter(line.get("test") for line in said)
    return {
        str(line["test"]): line
        for line in said
        if counts[line.get("test")] == 1 and line.get("test") in tests
    }


def _why_failed(
    said: list[dict[str, Any]],
    results: dict[str, dict[str, Any]],
    mixed: MixedTests,
    program: str,
    libraries: Collection[str] | None,
) -> Verdict:
    for line in said:
        if line.get("tests_lack"):
            return _lack_of_tests(str(line["tests_lack"]))
        if line.get("lacks"):
            return _judge_lack(str(line["lacks"]), program, libraries)
    told = [str(line["error"]) for line in said if line.get("error")]
    told += [
        str(line.get("told"))
        for name, line in results.items()
        if name not in mixed.canaries and not line.get("passed")
    ]
    return Verdict("failed", (told or ["the program ended before the tests"])[0][:300])


def _lack_of_tests(name: str) -> Verdict:
    library = name.partition(".")[0]
    if _is_installed(library):
        return Verdict("failed", f"{name} cannot be imported")
    return Verdict("missing", f"the tests need {library}")


def _judge_lack(name: str, program: str, libraries: Collection[str] | None) -> Verdict:
    """Believe that a library is missing only where the program imports it and it is not here."""
    library = name.partition(".")[0]
    imports = re.search(rf"\b(?:import|from)\s+{re.escape(library)}\b", program)
    if not imports or _is_installed(library):
        return Verdict("failed", f"no module {name}")
    if libraries and library not in libraries:
        return Verdict("failed", f"{library} is not installed, and the task does not name it")
    return Verdict("missing", f"{library} is not installed")


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def _start_of_tests(test: str, entry_point: str) -> str:
    tree = ast.parse(test)
    functions = [item for item in tree.body if isinstance(item, ast.FunctionDef)]
    if any(item.name == "check" for item in functions):
        if not entry_point:
            raise ValueError("the tests need single_turn_metadata.entry_point")
        return f"check({entry_point})"
    return "\n".join(
        f"{item.name}()"
        for item in functions
        if item.name.startswith("test") and not item.args.args
    )
