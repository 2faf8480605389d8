"""Close the file system but for a few folders, from inside the process (Landlock)."""

import ctypes
import os

_CREATE, _ADD, _RESTRICT, _VERSION = 444, 445, 446, 1
_READ = 0b1101  # execute, read file, read folder
_RIGHTS_OF_FILES = 0b111 | 1 << 14 | 1 << 15
_READ_WRITE_FILE = 0b110
_SIGNALS_AND_ABSTRACT_SOCKETS = 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = [
        ("fs", ctypes.c_uint64),
        ("net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def abi() -> int:
    """Return the kernel's version of Landlock; 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, 0, _VERSION)))


def restrict(writable: list[str], readable: list[str]) -> None:
    """Allow all in `writable`, reading in `readable`; every other path is closed.

    From ABI 4 on TCP is closed, too; from ABI 6 on signals to processes outside.

    Raises:
        OSError: If the kernel refuses.
    """
    version = abi()
    rights = (1 << 13) - 1
    for needed, right in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        rights |= 1 << right if version >= needed else 0
    attributes = _Ruleset(
        rights,
        0b11 if version >= 4 else 0,
        _SIGNALS_AND_ABSTRACT_SOCKETS if version >= 6 else 0,
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset = _check(libc.syscall(_CREATE, ctypes.byref(attributes), size, 0), "landlock")
    allowed = [(path, _READ) for path in readable] + [(path, rights) for path in writable]
    allowed += [("/dev/null", _READ_WRITE_FILE), ("/dev/urandom", 0b100)]
    for path, access in allowed:
        if os.path.exists(path):  # noqa: PTH110
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            kept = access if os.path.isdir(path) else access & _RIGHTS_OF_FILES  # noqa: PTH112
            rule = _Beneath(kept & rights, handle)
            _check(libc.syscall(_ADD, ruleset, 1, ctypes.byref(rule), 0), f"landlock {path}")
            os.close(handle)
    _check(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    _check(libc.syscall(_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result
