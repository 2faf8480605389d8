"""The tests' process: keeps tests, expected values and verdict, and asks the program's process.

It runs in a sandbox of its own, since tests come out of a data set, too.
"""

import os
from importlib.util import find_spec
from typing import Any, BinaryIO

from collabllm.rewards.sandbox.inside.remote import (
    Link,
    MissingLibraryError,
    NotPlainError,
    TamperedError,
)
from collabllm.rewards.sandbox.inside.wire import send


def main(task: dict[str, Any], status: BinaryIO) -> None:
    """Run the tests, and report one verdict."""
    link = Link(os.fdopen(task["read_fd"], "rb"), os.fdopen(task["write_fd"], "wb"))
    verdict, reason = _examine(task, link)
    send(status, {"verdict": verdict, "reason": reason[:500]})
    os._exit(0)


def _examine(task: dict[str, Any], link: Link) -> tuple[str, str]:
    error = None
    try:
        names, error = link.load()
        _run_tests(task, names)
    except TamperedError as cheat:
        return "tampered", str(cheat)
    except NotPlainError as value:
        return "missing", f"the tests hand over {value}: give them as a unittest class"
    except MissingLibraryError as missing:
        return "lacks", str(missing.name)
    except ModuleNotFoundError as missing:
        library = str(missing.name).partition(".")[0]
        return ("missing", f"the tests need {library}") if _is_absent(library) else _failed(missing)
    except BaseException as failure:
        if error and error.get("missing"):
            return "lacks", str(error["missing"])
        told = f"; the program ended with {error['class']}: {error['text']}" if error else ""
        verdict, reason = _failed(failure)
        return verdict, reason + told
    return "passed", ""


def _run_tests(task: dict[str, Any], names: dict[str, Any]) -> None:
    space: dict[str, Any] = {"__name__": "tests", **names}
    exec(compile(task["test"], "tests.py", "exec"), space)
    if task["start"]:
        exec(compile(task["start"], "tests.py", "exec"), space)


def _failed(error: BaseException) -> tuple[str, str]:
    return "failed", f"{type(error).__name__}: {error}"


def _is_absent(library: str) -> bool:
    return find_spec(library) is None
