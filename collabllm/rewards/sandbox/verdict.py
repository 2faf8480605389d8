"""Does a program pass its tests? The verdict stays with processes that the program cannot reach."""

import os
import random
import secrets
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from collabllm.rewards.program_names import imported_libraries, wanted_names
from collabllm.rewards.sandbox.canaries import MixedTests, mix_canaries
from collabllm.rewards.sandbox.process import Process, SandboxFailedError, watch
from collabllm.rewards.sandbox.run import choose_tier
from collabllm.rewards.sandbox.tier import Limits, Tier
from collabllm.rewards.sandbox.written_tests import (
    check_tests,
    is_installed,
    names_class,
    names_classes,
    parse_tests,
    starting_calls,
    unittest_classes,
)

_MIN_CANARIES = 4  # guessing all that many takes 1 try in 256
Outcome = Literal["passed", "failed", "tampered", "missing"]


class NoVerdictError(Exception):
    """The tests cannot tell a right program from a wrong one here; the text says why."""


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed; `missing` where that could not be found out. `reason` in words."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Exam:
    """What programs are run against, and how: the same for the reference as for a model's."""

    test: str
    entry_point: str
    libraries: frozenset[str]
    limits: Limits
    tier: Tier


def examine(
    program: str,
    test: str,
    entry_point: str = "",
    *,
    reference: str | None = None,
    libraries: Collection[str] = (),
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
        reference: A program that is right. If it does not pass, then it is the tests that cannot
            be run here, and the verdict is missing; if it passes, no other program is missing.
        libraries: Those that the task names. Where one is not installed, a program that imports
            it is missing; one that imports any other has failed.
        limits: Defaults of `Limits`; `wall_s` is for each of the one or two runs.
        allow_unsafe: Where the system offers no isolation, run with limits alone.
        tier: Defaults to the best that this system has.

    Raises:
        SandboxUnavailableError: If there is no isolation and `allow_unsafe` is False.
    """
    tier = tier or choose_tier(allow_unsafe=allow_unsafe)
    exam = Exam(test, entry_point, frozenset(libraries), limits or Limits(), tier)
    try:
        check_tests(test, entry_point)
        verdict = _examine(program, exam)
        if verdict.outcome != "missing" and _is_passed_by_nothing(exam):
            raise NoVerdictError("a program that answers everything by an empty list passes, too")
        if verdict.outcome == "passed" or reference is None:
            return verdict
        _check_reference(reference, exam)
    except (SandboxFailedError, NoVerdictError, ValueError) as error:
        return Verdict("missing", str(error))
    return Verdict("failed", verdict.reason) if verdict.outcome == "missing" else verdict


@lru_cache(maxsize=1024)
def _is_passed_by_nothing(exam: Exam) -> bool:
    """Tell whether tests say something of all items of a result, and nothing where it has none."""
    if unittest_classes(parse_tests(exam.test)):
        return False  # its canaries would pass, too
    names = wanted_names(exam.test, exam.entry_point)
    functions = sorted(name for name in names if not names_class(name))
    nothing = "\n".join(f"def {name}(*_, **__):\n    return []" for name in functions)
    return _examine_apart(nothing, exam).outcome == "passed"


@lru_cache(maxsize=1024)
def _check_reference(reference: str, exam: Exam) -> None:
    verdict = _examine(reference, exam)
    if verdict.outcome != "passed":  # an error is not kept, so that a machine under load may pass
        raise NoVerdictError(f"the task's own solution does not pass: {verdict.reason}")


def _examine(program: str, exam: Exam) -> Verdict:
    if unittest_classes(parse_tests(exam.test)):
        verdict = _examine_together(program, exam)
    else:
        verdict = _examine_apart(program, exam)
    if verdict.outcome == "failed":
        for library in sorted(exam.libraries & imported_libraries(program)):
            if not is_installed(library):
                return Verdict("missing", f"{library} is not installed")
    return verdict


def _examine_apart(program: str, exam: Exam) -> Verdict:
    names = sorted(wanted_names(exam.test, exam.entry_point))
    questions_out, questions_in = os.pipe()
    answers_out, answers_in = os.pipe()
    asked: dict[str, Any] = {"program": program, "names": names}
    asked |= {"read_fd": questions_out, "write_fd": answers_in}
    asking = {"test": exam.test, "names": names, "read_fd": answers_out, "write_fd": questions_in}
    asking["start"] = starting_calls(parse_tests(exam.test), exam.entry_point)
    asking["own_classes"] = names_classes(exam.test, exam.entry_point)
    limits = exam.limits
    candidate = Process(exam.tier, "candidate", asked, limits, (questions_out, answers_in))
    examiner = Process(exam.tier, "examiner", asking, limits, (answers_out, questions_in))
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
    if not said:  # what the program sends can fill the tests' memory or end them in C
        return Verdict("failed", "the tests' process ended")
    outcome, reason = said[0]["verdict"], said[0]["reason"]
    if outcome == "failed" and candidate.ended_by:
        reason = f"more than its share of {candidate.ended_by}"
    return Verdict(outcome, reason)


def _examine_together(program: str, exam: Exam) -> Verdict:
    verdict, num_canaries = Verdict("passed"), 0
    while verdict.outcome == "passed" and num_canaries < _MIN_CANARIES:
        pair = mix_canaries(exam.test, random.Random(secrets.randbits(64)))
        num_canaries += sum(len(mixed.canaries) for mixed in pair)
        for mixed in pair:
            found = _run_mixed(program, mixed, exam)
            if found.outcome == "failed":  # what a canary wants may be what a wrong program answers
                return found
            if found.outcome == "tampered":
                verdict = found
    return verdict


def _run_mixed(program: str, mixed: MixedTests, exam: Exam) -> Verdict:
    task: dict[str, Any] = {"program": program, "test": mixed.source, "tests": mixed.tests}
    with Process(exam.tier, "together", task, exam.limits) as process:
        in_time = watch(process, [], exam.limits.wall_s)
        said = [line for line in process.lines() if isinstance(line, dict)]
    results = _results(said, mixed.tests)
    passed = {name for name, line in results.items() if line.get("passed") is True}
    if passed >= set(mixed.tests) - mixed.canaries:
        if passed & mixed.canaries:
            return Verdict("tampered", "a test that must fail has passed")
        return Verdict("passed")
    if process.ended_by or not in_time:
        return Verdict("failed", f"more than its share of {process.ended_by or 'time'}")
    told = [str(line["error"]) for line in said if line.get("error")]
    told += [
        str(results[name].get("told"))
        for name in sorted(results.keys() - passed)
        if name not in mixed.canaries
    ]
    return Verdict("failed", (told or ["the program ended before the tests"])[0][:300])


def _results(said: list[dict[str, Any]], tests: list[str]) -> dict[str, dict[str, Any]]:
    """Return what was said of each test; one that was spoken of twice has failed."""
    counts = Counter(line.get("test") for line in said)
    return {
        str(line["test"]): line
        for line in said
        if counts[line.get("test")] == 1 and line.get("test") in tests
    }
