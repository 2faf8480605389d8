"""How sure sampled rewards are that one reply is better than another."""

from collections.abc import Sequence

import numpy as np


def p_better(first: Sequence[float | None], second: Sequence[float | None]) -> float:
    """Return the probability that the first reply's mean reward is the higher one, in [0, 1].

    Futures of the same position share their seed, so differences are taken in pairs; a pair with a
    missing side is left out. Student's t distribution of the mean difference, with a flat prior.

    Args:
        first: Rewards of one reply's futures, None where missing.
        second: Rewards of the other one's, in the same order of seeds.

    Returns:
        0.5 with fewer than two pairs, which say nothing about spread, and for equal rewards.
    """
    pairs = zip(first, second, strict=False)
    differences = np.array([a - b for a, b in pairs if a is not None and b is not None])
    if len(differences) < 2:
        return 0.5
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    if error < 1e-12:
        return 0.5 if abs(mean) < 1e-12 else float(mean > 0)
    from scipy.stats import t

    return float(t.cdf(mean / error, len(differences) - 1))
