"""What every script does around its work: errors as sentences, and a true exit status."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from collabllm.errors import CollabLLMError, IncompleteRunError

_INTERRUPTED = 130  # 128 + SIGINT, as shells expect
_in_script = False
_in_larger_run = False
_SECRET = "hub_token"


def go_on_with(**settings: object) -> str:
    """Say how to go on with a run: the command of this script, or the arguments of a call.

    Args:
        settings: To add, in place of what was given, such as `resume=True`.
    """
    if _in_larger_run:
        return f"Go on with the same {'command' if _in_script else 'call'}."
    if not _in_script:
        added = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        return f"Go on with the same call and {added}."
    flags: list[str] = []
    for name, value in settings.items():
        flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # the launcher's own words are not known here
        return f"Go on with the same launch command, with {shlex.join(flags)}"
    kept = _without(sys.argv[1:], {*settings, _SECRET})
    had_secret = kept != _without(sys.argv[1:], settings)
    command = shlex.join([sys.executable, sys.argv[0], *kept, *flags])
    return f"Go on with: {command}" + (f"\n(and --{_SECRET} as before)" if had_secret else "")


@contextmanager
def larger_run() -> Iterator[None]:
    """Mark the runs in this block as parts of one that goes on by itself when called again."""
    global _in_larger_run
    before, _in_larger_run = _in_larger_run, True
    try:
        yield
    finally:
        _in_larger_run = before


def _without(words: list[str], flags: Container[str]) -> list[str]:
    """Leave out these flags and their values."""
    kept: list[str] = []
    left_out = False
    for word in words:
        if word.startswith("--"):
            left_out = word[2:].partition("=")[0].replace("-", "_") in flags
        if not left_out:
            kept.append(word)
    return kept


def kill_at_next_interrupt() -> None:
    """Let the next Ctrl-C kill the script; for who took the first one by a handler of their own."""
    if _in_script and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main`, and end the process.

    The exit status is 0 when all work is done, 1 when a run ended before that, 2 for an error that
    the user can mend (a flag, a file, a row, a server), 130 after Ctrl-C. Such an error prints its
    sentence alone; `--debug` shows the traceback. Any other error is a fault of the program and
    keeps its traceback.

    Args:
        main: Reads the command line, and does the work. To say what Ctrl-C leaves behind, the work
            raises `KeyboardInterrupt(sentence)`. A second Ctrl-C kills.
    """
    with _script():
        try:
            main()
        except KeyboardInterrupt as stop:
            _say(" ".join(map(str, stop.args)) or "Interrupted.")
            os._exit(_INTERRUPTED)  # threads that still compute would hold the process, or abort it
        except IncompleteRunError as error:
            _end(1, str(error))
        except (CollabLLMError, ImportError, OSError, TypeError, ValueError) as error:
            if "--debug" in sys.argv or not _is_for_the_user(error):
                raise
            _end(2, f"{_sentence(error)}\n(--debug shows where this comes from.)")
        sys.exit(0)


@contextmanager
def _script() -> Iterator[None]:
    """Let the first Ctrl-C interrupt and the second one kill, while a script runs."""
    global _in_script
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        signal.signal(signal.SIGINT, _interrupt_once)
    _in_script = True
    try:
        yield
    finally:
        _in_script = False
        if is_main:
            signal.signal(signal.SIGINT, before)


def _interrupt_once(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.flush()
    print(f"\n{text}", file=sys.stderr, flush=True)


def _end(status: int, text: str) -> NoReturn:
    _say(text)
    sys.exit(status)


def _sentence(error: Exception) -> str:
    """Return an error's text; in words, where it is the system's own about a file."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename}: a file stands where a folder is needed; choose another name."
    return f"{error.filename}: {str(error.strerror).lower()}."


def _is_for_the_user(error: Exception) -> bool:
    """Tell whether an error is about what the user gave.

    It is if it is ours, one of files and servers, or one that says what to install.
    """
    if isinstance(error, CollabLLMError | OSError) or "pip install" in str(error):
        return True
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = traceback.tb_frame.f_globals.get("__name__", "") if traceback else ""
    return str(raised_in).startswith("collabllm.")
