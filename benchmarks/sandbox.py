"""Seconds of a call of the sandbox in each tier that this machine has.

uv run python benchmarks/sandbox.py [--repeats 20]
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

from collabllm.rewards.sandbox.bubblewrap import BUBBLEWRAP
from collabllm.rewards.sandbox.landlock import LANDLOCK
from collabllm.rewards.sandbox.run import run_program, tier_error
from collabllm.rewards.sandbox.tier import Limits, Tier
from collabllm.rewards.sandbox.unsafe import UNSAFE
from collabllm.rewards.sandbox.verdict import examine

_PATIENT = Limits(wall_s=120)  # on a machine under load
_PROGRAM = "def f(x):\n    return x + 1"
_CHECK = "def check(candidate):\n    assert [candidate(x) for x in range(9)] == list(range(1, 10))"
_UNITTEST = "import unittest\nclass TestCases(unittest.TestCase):\n" + "".join(
    f"    def test_{x}(self):\n        self.assertEqual(f({x}), {x + 1})\n" for x in range(5)
)


def calls(tier: Tier) -> dict[str, Callable[[], object]]:
    """Return what is timed."""

    def ask(test: str, entry_point: str = "") -> object:
        return examine(_PROGRAM, test, entry_point, limits=_PATIENT, tier=tier)

    return {
        "empty program": lambda: run_program("pass", _PATIENT, tier=tier),
        "import numpy": lambda: run_program("import numpy", _PATIENT, tier=tier),
        "check() with 9 calls": lambda: ask(_CHECK, "f"),
        "unittest, 5 tests, each twice": lambda: ask(_UNITTEST),
    }


def main() -> None:
    """Print a table: median seconds a call, one call at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    print("| tier | what | median s | least s |\n|---|---|---|---|")
    for tier in (BUBBLEWRAP, LANDLOCK, UNSAFE):
        error = tier_error(tier)
        if error:
            print(f"| {tier.name} | not here: {error} | | |")
            continue
        for name, call in calls(tier).items():
            seconds = []
            for _ in range(repeats):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
            print(
                f"| {tier.name} | {name} | {median(seconds):.3f} | {min(seconds):.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
