"""What a tier of isolation is: a command around a process, and what is left for it to close."""

import contextlib
import os
import secrets
import site
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
_FIRST_USER_ID, _NUM_USER_IDS = 40_000, 20_000  # inside what rootless containers map
_user_ids = iter(range(secrets.randbelow(_NUM_USER_IDS), 2**62))


@dataclass(frozen=True)
class Limits:
    """Of one program, all its processes together unless it says otherwise."""

    wall_s: float = 20.0
    cpu_s: int = 15  # a process
    memory_bytes: int = 2 * 2**30
    address_bytes: int = 6 * 2**30  # a process; libraries reserve more than they use
    file_bytes: int = 16 * 2**20  # a file
    disk_bytes: int = 64 * 2**20
    processes: int = 64  # threads count


@dataclass(frozen=True)
class Tier:
    """One way to shut a program in.

    Attributes:
        name: As in the log, the documentation and the tests.
        lacks: Why this system cannot have it as far as can be told without trying; else None.
        command: From the limits and the folders to read, the words before `python`.
        own_root: The tier gives a file system, processes and network of its own.
        landlock: The process closes the file system by itself.
        seccomp: `must`, or `try`.
    """

    name: str
    lacks: Callable[[], str | None]
    command: Callable[[Limits, list[str]], list[str]]
    own_root: bool
    landlock: bool
    seccomp: str


def new_user_id() -> int | None:
    """Return a user id that owns nothing, one a process; None where the caller is not root."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return None
    taken = _users_with_processes()  # another run's ids may come to be the same
    ids = (_FIRST_USER_ID + number % _NUM_USER_IDS for number in _user_ids)
    return next(user_id for user_id in ids if user_id not in taken)


def _users_with_processes() -> set[int]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end meanwhile
            found.add(folder.stat().st_uid)
    return found


@lru_cache(maxsize=1)
def readable_paths() -> list[str]:
    """Return Python's own folders, the system's libraries, and what runs inside the sandbox."""
    folders = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)}
    folders |= {sysconfig.get_paths()["stdlib"], *site.getsitepackages()}
    folders.add(str(Path(__file__).with_name("inside")))
    # "/" would be everything, and what lies in a folder that is there already adds nothing.
    paths = {Path(folder) for folder in (*folders, *_SYSTEM)} - {Path("/")}
    return sorted(
        str(path)
        for path in paths
        if path.exists() and not any(other in path.parents for other in paths)
    )


def has_hidden_folders() -> bool:
    """Tell whether Python lies where only root may enter, such as its home."""
    return any(
        not folder.stat().st_mode & 0o001
        for path in readable_paths()
        for folder in Path(path).resolve().parents
    )
