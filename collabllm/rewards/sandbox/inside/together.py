"""Runs a unittest file in the program's own process: one fork a test, one line a result.

Whatever is said here can be forged by the program. The trusted side mixes in tests that must fail.
"""

import io
import os
import sys
import unittest
from typing import Any, BinaryIO

from collabllm.rewards.sandbox.inside.candidate import MODULE, load_program
from collabllm.rewards.sandbox.inside.wire import send


def main(task: dict[str, Any], status: BinaryIO) -> None:
    """Run each test in turn."""
    names, error = load_program(task["program"])
    if isinstance(error, ModuleNotFoundError):
        send(status, {"lacks": error.name})
    try:
        exec(compile(task["test"], "tests.py", "exec"), names)
    except ModuleNotFoundError as missing:
        send(status, {"tests_lack": missing.name})
        os._exit(0)
    except (Exception, SystemExit) as failure:
        send(status, {"error": f"{type(failure).__name__}: {failure}"})
        os._exit(0)
    for test in task["tests"]:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            send(status, {"test": test, **_run(test, task["may_skip"])})
            os._exit(0)
        os.waitpid(pid, 0)
    os._exit(0)


def _run(test: str, may_skip: bool) -> dict[str, Any]:
    output = io.StringIO()
    suite = unittest.defaultTestLoader.loadTestsFromName(test, sys.modules[MODULE])
    result = unittest.TextTestRunner(output, verbosity=0).run(suite)
    skipped = bool(result.skipped)
    problems = result.errors + result.failures
    told = problems[0][1] if problems else ""
    lacks = told.rpartition("No module named ")[2].strip("\n'") if "ModuleNotFound" in told else ""
    return {
        "passed": result.wasSuccessful() and result.testsRun > 0 and skipped <= may_skip,
        "skipped": skipped,
        "told": told.strip().rpartition("\n")[2][:300],
        "lacks": lacks,
    }
