"""The middle tier, where namespaces are forbidden (Docker, Kubernetes): Landlock and seccomp."""

import os
import sys

from collabllm.rewards.sandbox.inside.landlock import abi
from collabllm.rewards.sandbox.tier import Limits, Tier

# ABI 1 and 2 let a program empty files outside. As root each program gets a user id of its own;
# without, only ABI 6 keeps it from sending signals to the user's other processes.
_MIN_ABI_AS_ROOT, _MIN_ABI = 3, 6


def _lacks() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"no Landlock on {sys.platform}"
    needed = _MIN_ABI_AS_ROOT if os.geteuid() == 0 else _MIN_ABI
    return None if abi() >= needed else f"Landlock ABI {needed} is needed, the kernel has {abi()}"


def _command(limits: Limits, readable: list[str]) -> list[str]:
    return []


LANDLOCK = Tier("landlock", _lacks, _command, own_root=False, landlock=True, seccomp="must")
