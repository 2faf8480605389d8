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
from collabllm.rewards.sandbox.tier import Tier
from collabllm.rewards.sandbox.unsafe import UNSAFE
from collabllm.rewards.sandbox.verdict import examine

_PROGRAM = "def f(x):\n    return x + 1"
_CHECK = "def check(candidate):\n    assert [candidate(x) for x in range(9)] == list(range(1, 10))"
_UNITTEST = "import unittest\nclass TestCases(unittest.TestCase):\n" + "".join(
    f"    def test_{x}(self):\n        self.assertEqual(f({x}), {x + 1})\n" for x in range(5)
)


def calls(tier: Tier) -> dict[str, Callable[[], object]]:
    """Return what is timed."""
    return {
        "empty program": lambda: run_program("pass", tier=tier),
        "import numpy": lambda: run_program("import numpy", tier=tier),
        "check() with 9 calls": lambda: examine(_PROGRAM, _CHECK, "f", tier=tier),
        "unittest, 5 tests, each twice": lambda: examine(_PROGRAM, _UNITTEST, tier=tier),
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
            print(f"| {tier.name} | {name} | {median(seconds):.3f} | {min(seconds):.3f} |")


if __name__ == "__main__":
    main()
