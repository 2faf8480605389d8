"""First code in the sandbox: closes what is still open, then becomes what the job says.

Run by `process.py` as `python -I start.py`. Standard input holds one JSON object, a `Job`. On the
status pipe it says "ready" when all doors are closed; if it cannot, it says why and ends.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_CHILD_SUBREAPER, _PR_CAP_AMBIENT = 1, 8, 36, 47
_CAP_DAC_READ_SEARCH, _CAP_VERSION_3 = 2, 0x20080522
_PACKAGE = "collabllm.rewards.sandbox.inside"


class Job(TypedDict):
    """What a process is to be, and how it is closed in."""

    role: str  # a module of this folder with `main(job, status)`, or "program"
    task: dict[str, Any]  # for the role
    folder: str  # where it may write; it starts there
    readable: list[str]
    limits: dict[str, int]
    user_id: int | None  # to become, where the caller is root
    see_hidden_folders: bool  # Python lies where only root may enter; Landlock limits what is seen
    supervise: bool  # no process namespace: keep track of descendants here
    landlock: bool
    seccomp: str  # "must", or "try"
    own_network: bool  # nothing outside can be reached by a socket
    status_fd: int


def main() -> None:
    """Close the doors in order, and start."""
    job: Job = json.load(sys.stdin)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    _stand_for_package()
    status = os.fdopen(job["status_fd"], "wb")
    if job["supervise"]:
        _supervise()
    try:
        _close_doors(job)
    except Exception as error:
        _say(status, f"{type(error).__name__}: {error}")
        sys.exit(1)
    _say(status, "ready")
    if job["role"] == "program":
        status.close()
        program = Path("program.py")
        program.write_text(job["task"]["program"], encoding="utf-8")
        os.execv(sys.executable, [sys.executable, "-I", "program.py"])
    role: Callable[[dict[str, Any], BinaryIO], None]
    role = __import__(f"{_PACKAGE}.{job['role']}", fromlist=["main"]).main
    role(job["task"], status)


def _say(status: BinaryIO, text: str) -> None:
    status.write(text.encode() + b"\n")
    status.flush()


def _stand_for_package() -> None:
    """Make this folder importable under its name without the rest of the package."""
    parts = _PACKAGE.split(".")
    for idx in range(len(parts)):
        module = types.ModuleType(".".join(parts[: idx + 1]))
        module.__path__ = [str(Path(__file__).parent)] if idx == len(parts) - 1 else []
        sys.modules[module.__name__] = module


def _close_doors(job: Job) -> None:
    from collabllm.rewards.sandbox.inside import landlock, seccomp

    os.chdir(job["folder"])
    limits = job["limits"]
    for name, limit in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, limits["address_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 128),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_NPROC, limits["processes"]),
    ):
        hard = resource.getrlimit(name)[1]
        kept = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(name, (kept, kept))
    if job["user_id"] is not None:
        _become(job["user_id"], keep_search=job["see_hidden_folders"])
    if job["landlock"]:
        landlock.restrict([job["folder"]], job["readable"])
    try:
        own_user = job["user_id"] is not None
        outside_is_there = not job["own_network"]
        seccomp.install(
            refuse_sockets=outside_is_there, pretend_modes=outside_is_there and not own_user
        )
    except (OSError, AttributeError):
        if job["seccomp"] == "must":
            raise


def _become(user_id: int, *, keep_search: bool) -> None:
    """Turn from root into a user of no files, without capabilities but the one to find Python."""
    libc = ctypes.CDLL(None, use_errno=True)
    if keep_search:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user_id, user_id, user_id)
    os.setresuid(user_id, user_id, user_id)
    if keep_search:
        mask = 1 << _CAP_DAC_READ_SEARCH
        header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
        if libc.capset(header, sets) or libc.prctl(_PR_CAP_AMBIENT, 2, _CAP_DAC_READ_SEARCH, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot keep the right to enter Python's folder")


def _supervise() -> None:
    """Go on in a child; this process stays, adopts all orphans, and ends none before them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform.startswith("linux"):
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: _end_all(143))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    for handle in range(3, 256):  # the child's pipes, so that their ends are seen
        with contextlib.suppress(OSError):
            os.close(handle)
    while True:
        ended, status = os.wait()
        if ended == pid:
            _end_all(os.waitstatus_to_exitcode(status) % 256)


def _end_all(exit_status: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        for child in _children():
            for pid in _tree(child):  # stop all first: who is stopped starts nobody
                _signal(pid, signal.SIGSTOP)
        for child in _children():
            for pid in reversed(_tree(child)):
                _signal(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, 0)[0]:
                pass
        except ChildProcessError:
            os._exit(exit_status)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _tree(pid: int) -> list[int]:
    return [pid, *(found for child in _children(pid) for found in _tree(child))]


def _children(pid: int | str = "self") -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found


if __name__ == "__main__":
    main()
