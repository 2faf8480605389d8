"""The first tier: bubblewrap gives the program a file system, processes and network of its own."""

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from collabllm.rewards.sandbox.tier import Limits, Tier

_MIN_VERSION = (0, 8)  # `--size`
FOLDER = "/tmp"
_SHARED_MEMORY_BYTES = 64 * 2**20


@lru_cache(maxsize=1)
def _lacks() -> str | None:
    path = shutil.which("bwrap")
    if path is None:
        return "bubblewrap is not installed"
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = re.findall(r"\d+", told)
    if tuple(map(int, numbers)) < _MIN_VERSION:
        return f"bubblewrap 0.8 or later is needed, found {told.strip()!r}"
    return None


def _command(limits: Limits, readable: list[str]) -> list[str]:
    words = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session"]
    words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # start.py gives root away, then no capability is left
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-user"]
    parents = {str(parent) for path in readable for parent in Path(path).parents} - {"/"}
    for parent in sorted(parents - set(readable)):  # else bwrap makes them for root alone
        words += ["--perms", "0755", "--dir", parent]
    for path in readable:
        words += ["--ro-bind", path, path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for folder, size in ((FOLDER, limits.disk_bytes), ("/dev/shm", _SHARED_MEMORY_BYTES)):
        words += ["--size", str(size), "--perms", "1777", "--tmpfs", folder]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", FOLDER, "--"]


BUBBLEWRAP = Tier("bubblewrap", _lacks, _command, own_root=True, landlock=False, seccomp="try")
