"""Runs a unittest file in the program's own process: one fork a test, one line a result.

Each test finds the folder as it was before the first one, or what a test leaves behind would make
the next one fail.

Whatever is said here can be forged by the program. The trusted side mixes in tests that must fail.
"""

import contextlib
import io
import os
import sys
import unittest
from pathlib import Path
from typing import Any, BinaryIO

from collabllm.rewards.sandbox.inside.candidate import MODULE, load_program
from collabllm.rewards.sandbox.inside.wire import send


def main(task: dict[str, Any], status: BinaryIO) -> None:
    """Run each test in turn."""
    folder = Path.cwd()
    names, error = load_program(task["program"])
    try:
        exec(compile(task["test"], "tests.py", "exec"), names)
    except (Exception, SystemExit) as failure:
        first = error or failure
        send(status, {"error": f"{type(first).__name__}: {first}"})
        os._exit(0)
    before = _contents(folder)
    for test in task["tests"]:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            send(status, {"test": test, **_run(test)})
            os._exit(0)
        os.waitpid(pid, 0)
        _restore(folder, before)
    os._exit(0)


def _run(test: str) -> dict[str, Any]:
    output = io.StringIO()
    suite = unittest.defaultTestLoader.loadTestsFromName(test, sys.modules[MODULE])
    result = unittest.TextTestRunner(output, verbosity=0).run(suite)
    problems = result.errors + result.failures
    told = problems[0][1] if problems else ""
    return {
        "passed": result.wasSuccessful() and result.testsRun > 0 and not result.skipped,
        "told": told.strip().rpartition("\n")[2][:300] or "skipped",
    }


def _contents(folder: Path) -> dict[Path, bytes | None]:
    """Return the files below a folder with what is in them, and the folders with None."""
    with contextlib.suppress(OSError, RecursionError):
        return {
            path: path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }
    return {}


def _restore(folder: Path, before: dict[Path, bytes | None]) -> None:
    after = _contents(folder)
    for path in sorted(after.keys() - before.keys(), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for path, content in before.items():
        if path not in after or after[path] != content:
            with contextlib.suppress(OSError):
                path.mkdir(exist_ok=True) if content is None else path.write_bytes(content)
