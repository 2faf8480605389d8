"""What every script does around its work: errors as sentences, and a true exit status."""

import sys
from collections.abc import Callable
from typing import NoReturn

from collabllm.errors import CollabLLMError, IncompleteRunError

_INTERRUPTED = 130  # 128 + SIGINT, as shells expect


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main`, and end the process.

    The exit status is 0 when all work is done, 1 when a run ended before that, 2 for an error that
    the user can mend (a flag, a file, a row, a server), 130 after Ctrl-C. Such an error prints its
    sentence alone; `--debug` shows the traceback. Any other error is a fault of the program and
    keeps its traceback.

    Args:
        main: Reads the command line, and does the work. To say what Ctrl-C leaves behind, the work
            raises `KeyboardInterrupt(sentence)`.
    """
    try:
        main()
    except KeyboardInterrupt as stop:
        _end(_INTERRUPTED, " ".join(map(str, stop.args)) or "Interrupted.")
    except IncompleteRunError as error:
        _end(1, str(error))
    except (CollabLLMError, OSError, TypeError, ValueError) as error:
        if "--debug" in sys.argv or not _is_for_the_user(error):
            raise
        _end(2, f"{error}\n(--debug shows where this comes from.)")
    sys.exit(0)


def _end(status: int, text: str) -> NoReturn:
    sys.stdout.flush()
    print(f"\n{text}", file=sys.stderr, flush=True)
    sys.exit(status)


def _is_for_the_user(error: Exception) -> bool:
    """Tell whether an error is about what the user gave: ours, or one of files and servers."""
    if isinstance(error, CollabLLMError | OSError):
        return True
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    raised_in = traceback.tb_frame.f_globals.get("__name__", "") if traceback else ""
    return str(raised_in).startswith("collabllm.")
