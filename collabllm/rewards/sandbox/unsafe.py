"""The last tier, on demand only: limits, and no process left; files and network stay open."""

from collabllm.rewards.sandbox.tier import Limits, Tier


def _lacks() -> str | None:
    return None


def _command(limits: Limits, readable: list[str]) -> list[str]:
    return []


UNSAFE = Tier("unsafe", _lacks, _command, own_root=False, landlock=False, seccomp="try")
