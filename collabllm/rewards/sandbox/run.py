"""Choose the tier by trying, and run code that a model wrote: without network, keys or files."""

import asyncio
import logging
import os
from dataclasses import dataclass
from functools import lru_cache

from collabllm.event_loop import run_blocking
from collabllm.rewards.sandbox.bubblewrap import BUBBLEWRAP
from collabllm.rewards.sandbox.landlock import LANDLOCK
from collabllm.rewards.sandbox.memory import make_group
from collabllm.rewards.sandbox.process import Process, SandboxFailedError, watch
from collabllm.rewards.sandbox.tier import Limits, Tier
from collabllm.rewards.sandbox.unsafe import UNSAFE

logger = logging.getLogger(__name__)

TIERS = (BUBBLEWRAP, LANDLOCK)
_TRIAL = Limits(wall_s=30)


class SandboxUnavailableError(RuntimeError):
    """This system cannot isolate a program."""


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended; `finished`: by itself, in time, with exit status 0."""

    finished: bool
    exit_status: int | None
    timed_out: bool
    output: str


def run_program(
    program: str,
    limits: Limits | None = None,
    *,
    allow_unsafe: bool = False,
    tier: Tier | None = None,
) -> ProgramResult:
    """Run a Python program in a sandbox, as a script.

    That it finished says nothing about whether it is right: see `verdict.examine`.

    Args:
        program: Source text.
        limits: Defaults of `Limits`.
        allow_unsafe: Where the system offers no isolation, run with limits alone.
        tier: Defaults to the best that this system has.

    Raises:
        SandboxUnavailableError: If there is no isolation and `allow_unsafe` is False.
        SandboxFailedError: If the sandbox does not come up this time.
    """
    limits = limits or Limits()
    tier = tier or choose_tier(allow_unsafe=allow_unsafe)
    with Process(tier, "program", {"program": program}, limits) as process:
        in_time = watch(process, [], limits.wall_s)
        list(process.lines())
        status = process.popen.poll()
        output = process.output.decode(errors="replace").strip()
    if process.ended_by:
        output += f"\n(ended: more than its share of {process.ended_by})"
    finished = in_time and status == 0 and process.ended_by is None
    return ProgramResult(finished, status if in_time else None, not in_time, output)


async def arun_program(
    program: str, limits: Limits | None = None, *, allow_unsafe: bool = False
) -> ProgramResult:
    """Do as `run_program` does, at most as many at once as there are processors."""
    async with slots(asyncio.get_running_loop()):
        return await run_blocking(lambda: run_program(program, limits, allow_unsafe=allow_unsafe))


@lru_cache(maxsize=8)
def slots(loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
    """Return the loop's places for programs that run at once."""
    return asyncio.Semaphore(os.cpu_count() or 1)


def choose_tier(*, allow_unsafe: bool = False) -> Tier:
    """Return the best tier that works here; the log says once which one and why.

    Raises:
        SandboxUnavailableError: If none isolates and `allow_unsafe` is False.
    """
    error = isolation_error()
    if error is None:
        return next(tier for tier in TIERS if tier_error(tier) is None)
    if not allow_unsafe:
        raise SandboxUnavailableError(
            f"This system cannot isolate model-written code ({error}). Install bubblewrap "
            "(Debian: apt-get install bubblewrap), use a Linux with Landlock, or insist with "
            "--allow_unsafe_code; docs/sandbox.md says what each can stop."
        )
    _say_tier(f"without isolation ({error})", logging.WARNING)
    return UNSAFE


def check_isolation() -> None:
    """Check that programs can be isolated here, and say how.

    Raises:
        SandboxUnavailableError: If not.
    """
    tier = choose_tier()
    memory = "a cgroup" if _has_group() else "watching"
    better = [f"{t.name}: {tier_error(t)}" for t in TIERS[: TIERS.index(tier)]]
    why = f" ({'; '.join(better)})" if better else ""
    _say_tier(f"in the tier {tier.name!r}, memory limited by {memory}{why}", logging.INFO)


def isolation_error() -> str | None:
    """Return why programs cannot be isolated here, or None where they can, found by trying."""
    errors = []
    for tier in TIERS:
        error = tier_error(tier)
        if error is None:
            return None
        errors.append(f"{tier.name}: {error}")
    return "; ".join(errors)


@lru_cache(maxsize=8)
def tier_error(tier: Tier) -> str | None:
    """Return why a tier does not work here, or None where it does."""
    lacks = tier.lacks()
    if lacks is not None:
        return lacks
    try:
        result = run_program("pass", _TRIAL, tier=tier)
    except (SandboxFailedError, OSError) as error:
        return str(error)
    return None if result.finished else result.output or "a first program did not end"


@lru_cache(maxsize=1)
def _has_group() -> bool:
    group = make_group(_TRIAL)
    if group:
        group.remove()
    return group is not None


@lru_cache(maxsize=8)
def _say_tier(text: str, level: int) -> None:
    logger.log(level, "Model-written code runs %s.", text)
