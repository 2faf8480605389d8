"""Runs inside the sandbox's process: closes every door, then becomes the untrusted program.

Started by `run.py` as `python -I child.py`; standard library only. Reads one JSON
object from standard input: program, folder, read_only, limits and `isolate`. Its exit status is the
program's, 120 where isolation failed before the program started.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_ISOLATION_FAILED = 120
_CLONE_FLAGS = (
    0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000
)  # user mnt pid net ipc
_NOBODY = 65534
_MS_NOSUID_NODEV, _MS_REC_PRIVATE = 2 | 4, 0x4000 | 0x40000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ, _ALL_V1 = 0b1101, (1 << 13) - 1  # execute, read file, read folder; all rights of ABI 1
_FILE_RIGHTS = 0b111 | (1 << 14)
_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _PathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def main() -> None:
    """Enter the namespaces, start the program, and exit as it does."""
    job = json.load(sys.stdin)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not job["isolate"]:
        _become(job, isolated=False)
    try:
        _enter_namespaces()
    except OSError as error:
        print(f"no isolation: {error}", file=sys.stderr)
        sys.exit(_ISOLATION_FAILED)
    # The first process of the new namespace takes all others with it when it ends.
    sys.exit(_fork_and_wait(lambda: _be_first(job)))


def _enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:  # the limit on processes does not hold for the real user root
        os.setresuid(_NOBODY, 0, 0)
    _check(_libc.unshare(_CLONE_FLAGS), "unshare")
    with open("/proc/self/setgroups", "w") as stream:  # noqa: PTH123
        stream.write("deny")
    for name, own in (("uid_map", uid), ("gid_map", gid)):
        with open(f"/proc/self/{name}", "w") as stream:  # noqa: PTH123
            stream.write(f"{own} {own} 1")


def _be_first(job: dict[str, Any]) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.exit(_fork_and_wait(lambda: _become(job, isolated=True)))


def _fork_and_wait(child: Any) -> int:
    pid = os.fork()
    if pid == 0:
        child()
    _, status = os.waitpid(pid, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _become(job: dict[str, Any], *, isolated: bool) -> None:
    folder = job["folder"]
    limits = job["limits"]
    try:
        if isolated:
            _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "mount private")
            size = f"size={limits['disk_bytes']},nr_inodes=4096,mode=0700".encode()
            _check(
                _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _MS_NOSUID_NODEV, size),
                "mount tmpfs",
            )
        os.chdir(folder)
        with open("program.py", "w", encoding="utf-8") as stream:  # noqa: PTH123
            stream.write(job["program"])
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        if isolated:
            _restrict_files(folder, job["read_only"])
    except OSError as error:
        print(f"no isolation: {error}", file=sys.stderr)
        os._exit(_ISOLATION_FAILED)
    for name, limit in (
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 128),
        (resource.RLIMIT_NPROC, limits["processes"]),
    ):
        if isolated or name != resource.RLIMIT_NPROC:  # it would count all of the user's processes
            resource.setrlimit(name, (limit, limit))
    environment = {"HOME": folder, "TMPDIR": folder, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.execve(sys.executable, [sys.executable, "-I", "program.py"], environment)


def _restrict_files(folder: str, read_only: list[str]) -> None:
    """Allow writing in one folder and reading in a few; everything else is closed (Landlock)."""
    abi = _check(_libc.syscall(_LANDLOCK_CREATE, None, 0, 1), "landlock")
    rights = _ALL_V1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0)
    attr = _RulesetAttr(rights)
    ruleset = _check(
        _libc.syscall(_LANDLOCK_CREATE, ctypes.byref(attr), ctypes.sizeof(attr), 0), "landlock"
    )
    allowed = [(path, _READ) for path in read_only]
    allowed += [("/dev/null", 0b110), ("/dev/urandom", 0b100), (folder, rights)]
    for path, access in allowed:
        if not os.path.exists(path):  # noqa: PTH110
            continue
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        kept = access if os.path.isdir(path) else access & _FILE_RIGHTS  # noqa: PTH112
        rule = _PathAttr(kept & rights, handle)
        _check(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), 0), f"landlock {path}")
        os.close(handle)
    _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


if __name__ == "__main__":
    main()
