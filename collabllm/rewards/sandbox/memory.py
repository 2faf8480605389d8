"""One limit for the memory of all processes of a program: by cgroup, else by looking often."""

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from collabllm.rewards.sandbox.tier import Limits

_ROOT = Path("/sys/fs/cgroup")
_EMPTY_WAIT_S = 5.0
_MAX_PATH_BYTES = 2048  # half of the system's limit
_HUGE = 2**62


class Group:
    """Control groups of one program; `files` is where a process writes its id to join."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.files = [folder / "cgroup.procs" for folder in folders]

    def has_overflowed(self) -> bool:
        """Tell whether the kernel has ended a process because the memory was used up."""
        for name in ("memory.events", "memory.oom_control"):  # version 2, version 1
            with contextlib.suppress(OSError):
                words = (self.folders[0] / name).read_text().split()
                return words[words.index("oom_kill") + 1] != "0"
        return False

    def remove(self) -> None:
        """Delete them, as soon as the last process is gone."""
        deadline = time.monotonic() + _EMPTY_WAIT_S
        for folder in self.folders:
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.002)


def make_group(limits: Limits) -> Group | None:
    """Make groups that limit memory and processes, or return None where that is not allowed."""
    folders: list[Path] = []
    try:
        for parent, settings in _parents():
            folder = parent / f"collabllm-{secrets.token_hex(6)}"
            folder.mkdir()
            folders.append(folder)
            for name in settings:
                value = limits.processes if name == "pids.max" else limits.memory_bytes
                (folder / name).write_text(str(value))
            for name in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
                with contextlib.suppress(OSError):
                    (folder / name).write_text("0" if "max" in name else str(limits.memory_bytes))
    except OSError:
        for folder in folders:
            folder.rmdir()
        return None
    return Group(folders) if folders else None


@lru_cache(maxsize=1)
def _parents() -> list[tuple[Path, tuple[str, ...]]]:
    """Return where groups can be made, with the files that limit: version 2, else version 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = {line.split(":")[1]: line.split(":", 2)[2].lstrip("/") for line in lines}
    unified = _ROOT / own.get("", "")
    if _can_make(unified, ("memory.max", "pids.max")):
        return [(unified, ("memory.max", "pids.max"))]
    memory = _ROOT / "memory" / own.get("memory", "")
    if not _can_make(memory, ("memory.limit_in_bytes",)):
        return []
    found: list[tuple[Path, tuple[str, ...]]] = [(memory, ("memory.limit_in_bytes",))]
    pids = _ROOT / "pids" / own.get("pids", "")
    return [*found, (pids, ("pids.max",))] if _can_make(pids, ("pids.max",)) else found


def _can_make(parent: Path, needed: tuple[str, ...]) -> bool:
    folder = parent / f"collabllm-{secrets.token_hex(6)}"
    try:
        folder.mkdir()
    except OSError:
        return False
    can = all((folder / name).exists() for name in needed)
    with contextlib.suppress(OSError):  # a plain folder where nothing is mounted, too
        folder.rmdir()
    return can


def memory_in_use(pid: int) -> int:
    """Return the bytes that a process and its descendants hold; what they share counts for each."""
    total = 0
    for found in _tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{found}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
    return total


def disk_in_use(folder: str, pid: int, max_files: int = 10_000) -> int:
    """Return the bytes of a folder's files, and of those that a process deleted and still holds.

    It is huge where there are more than `max_files` of them, or where they cannot be counted:
    below a path too long for the system's calls, or in a folder that may not be listed.
    """
    total = num_files = 0
    folders = [folder]
    while folders:  # `os.walk` calls itself at each depth
        try:
            found = list(os.scandir(parent := folders.pop()))
        except FileNotFoundError:
            continue
        except OSError:
            return _HUGE
        num_files += len(found)
        if num_files > max_files or len(os.fsencode(parent)) > _MAX_PATH_BYTES:
            return _HUGE
        for item in found:
            with contextlib.suppress(OSError):
                if item.is_dir(follow_symlinks=False):
                    folders.append(item.path)
                total += item.stat(follow_symlinks=False).st_blocks * 512
    seen = set()
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            for path in os.scandir(f"/proc/{process}/fd"):
                about = os.stat(path.path)  # noqa: PTH116
                key = about.st_dev, about.st_ino
                if stat.S_ISREG(about.st_mode) and about.st_nlink == 0 and key not in seen:
                    seen.add(key)
                    total += about.st_blocks * 512
    return total


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                yield from _tree(int(child))
