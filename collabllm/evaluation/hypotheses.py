"""Tests of paired differences, and their correction over all that a report shows."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import binomtest

from collabllm.evaluation.statistics import (
    MIN_UNITS,
    Floats,
    Ints,
    moments,
    seeds_noise,
    sum_groups,
)

PRIMARY_SHARE = 0.9
"""Share of the error rate that the primary outcomes have; all others share the rest."""

SEEDS_TEST = "t over tasks and seeds"

EXACT_UNITS = 13
"""Of up to so many clusters all patterns of signs are tried."""

_NUM_FLIPS = 19_999
_KEPT_UNITS = 250  # patterns of up to so many clusters are kept as they are
_BLOCK = 1_000
_LEAST_VARIANCE = 1e-24
_LEAST_LOG_P = -40.0
_NOISE_SHARE = 0.1  # of the spread that tasks alone make between trainings: trainings have no less
_SAME = 1e-9  # sums that differ by less, relative to their terms, are equal but for rounding


def sign_flip_test(values: Floats, clusters: Ints, seed: int = 0) -> Floats:
    """Return two-sided p-values of a mean of 0 when each cluster's sign could be the other.

    scipy's `permutation_test` gives the same where no sums are equal; where they are, rounding lets
    it miss some of them (13 of 300 samples of thirds), and it takes one sample at a time.

    Args:
        values: Differences by task, shape [..., tasks].
        clusters: Shape [tasks]; the tasks of a cluster flip together.
        seed: Seed of the flips; all patterns are tried for up to 13 clusters.

    Returns:
        In (0, 1], shape [...].
    """
    sums = sum_groups(values, clusters)  # [..., clusters]
    number = sums.shape[-1]
    flat = sums.reshape(-1, number)
    observed = np.abs(flat.sum(axis=1)) - _SAME * np.abs(flat).sum(axis=1)
    reached, total = np.zeros(len(flat)), 0
    for signs in _sign_blocks(number, seed):
        reached += (np.abs(signs @ flat.T) >= observed).sum(axis=0)  # [patterns, samples]
        total += len(signs)
    return np.asarray((reached / total).reshape(sums.shape[:-1]))


def _sign_blocks(number: int, seed: int) -> Iterator[Floats]:
    """Yield the patterns of signs, those of many clusters in parts: all would take gigabytes."""
    if number <= _KEPT_UNITS:
        yield _sign_patterns(number, seed)
        return
    packed = _packed_patterns(number, seed)
    for start in range(0, len(packed), _BLOCK):
        bits = np.unpackbits(packed[start : start + _BLOCK], axis=1, count=number)
        yield 2.0 * bits.astype(np.float64) - 1.0


@lru_cache(maxsize=8)
def _packed_patterns(number: int, seed: int) -> NDArray[np.uint8]:
    """Return the patterns of `_sign_patterns`, a bit a sign; drawing them takes the longest."""
    generator = np.random.default_rng(seed)
    rows = [min(_BLOCK, _NUM_FLIPS - start) for start in range(0, _NUM_FLIPS, _BLOCK)]
    drawn = (generator.choice([-1.0, 1.0], size=(size, number)) for size in rows)
    packed = [np.packbits(signs > 0, axis=1) for signs in chain([np.ones((1, number))], drawn)]
    return np.vstack(packed)


@lru_cache(maxsize=8)
def _sign_patterns(number: int, seed: int) -> Floats:
    """Return all patterns of signs, or many of them, with the observed one among them.

    Of two opposite patterns, whose sums are equally far from 0, all patterns have but one.
    """
    if number <= EXACT_UNITS:
        bits = np.arange(2 ** (number - 1))[:, None] >> np.arange(number)
        return np.asarray(1.0 - 2.0 * (bits & 1))
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_NUM_FLIPS, number))
    return np.vstack([np.ones(number), drawn])


def mcnemar(differences: Floats) -> float:
    """Return McNemar's exact two-sided p-value from differences of 1, 0 and -1."""
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def p_value_of(values: Floats, clusters: Ints, seed: int = 0) -> tuple[float, str]:
    """Test whether a mean paired difference is 0, and name the test.

    Args:
        values: Shape [tasks, seeds]. Several seeds get the test of `over_tasks_and_seeds`: a sign
            flip of tasks would take one lucky training for an effect. It supposes normal means, so
            it claims no more than a sign flip does. Below 6 clusters all have a sign flip.
        clusters: Shape [tasks].
        seed: Seed of the random flips.
    """
    flat = values.mean(axis=1)
    if values.shape[1] > 1 and len(set(clusters)) >= MIN_UNITS:
        p_value = over_tasks_and_seeds(values, clusters)
        if p_value is not None:
            return max(p_value, float(sign_flip_test(flat, clusters, seed))), SEEDS_TEST
    if len(set(clusters)) == len(clusters) and np.isin(flat, (-1.0, 0.0, 1.0)).all():
        return mcnemar(flat), "McNemar"
    return float(sign_flip_test(flat, clusters, seed)), "sign flips"


def over_tasks_and_seeds(values: Floats, clusters: Ints) -> float | None:
    """Return the two-sided p-value at which the quantiles of tasks and of seeds make the mean.

    That is the p with mean^2 = (t of tasks)^2 var_tasks + (t of seeds)^2 var_seeds. The quantile of
    few seeds grows fast towards small p, which no single number of degrees of freedom follows. The
    spread of the seeds is taken as it is, with what the tasks make of it, and as a tenth of that
    where it is less: shares of few tasks often agree by luck, and would be left with none.

    Args:
        values: Shape [tasks, seeds], two seeds or more.
        clusters: Shape [tasks].

    Returns:
        In (0, 1]; None where nothing varies.
    """
    tasks = moments(values.mean(axis=1, keepdims=True), clusters)
    num_seeds = values.shape[1]
    between = float(values.mean(axis=0).var(ddof=1))
    seeds = max(between, _NOISE_SHARE * float(seeds_noise(values))) / num_seeds
    square = float(tasks.mean) ** 2
    if tasks.variance + seeds <= _LEAST_VARIANCE:
        return None

    def excess(log_p: float) -> float:
        half = np.exp(log_p) / 2
        of_tasks = stdtrit(float(tasks.df), half) ** 2 * float(tasks.variance)
        return float(of_tasks + stdtrit(num_seeds - 1.0, half) ** 2 * seeds - square)

    if not square or excess(_LEAST_LOG_P) < 0:
        return 1.0 if not square else float(np.exp(_LEAST_LOG_P))
    return float(np.exp(brentq(excess, _LEAST_LOG_P, 0.0)))


def smallest_possible(num_clusters: int, test: str) -> float:
    """Return the smallest p-value that a test can give for so many clusters."""
    least = 2.0 ** (1 - num_clusters)
    is_exact = test == "McNemar" or num_clusters <= EXACT_UNITS
    return least if is_exact else max(least, 1 / (_NUM_FLIPS + 1))


def correct(p_values: Sequence[float], primary: Sequence[bool]) -> list[float]:
    """Correct p-values over all that is shown, by Holm's method with weights.

    The primary outcomes have 90% of the error rate and all others together the rest, which they
    pass on as they are rejected. So the chance of any false finding stays below the level, and
    many exploratory comparisons take little from the primary ones.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979, section 4.
    """
    num_primary = sum(primary)
    num_others = len(primary) - num_primary
    share = PRIMARY_SHARE if num_primary and num_others else 1.0
    of_others = 1 - share if num_primary else 1.0
    weights = np.array(
        [share / num_primary if first else of_others / num_others for first in primary]
    )
    found = np.asarray(p_values, dtype=float)
    adjusted = [0.0] * len(primary)
    left, highest = 1.0, 0.0
    for idx in np.argsort(found / weights, kind="stable"):
        factor = max(left, weights[idx]) / weights[idx]
        highest = max(highest, min(1.0, float(found[idx] * factor)))
        adjusted[int(idx)] = highest
        left -= weights[idx]
    return adjusted


def first_levels(num_primary: int, num_others: int, level: float = 0.05) -> tuple[float, float]:
    """Return the levels of another and of a primary outcome before any other is rejected."""
    share = PRIMARY_SHARE if num_primary and num_others else 1.0
    of_others = 1 - share if num_primary else 1.0
    return level * of_others / max(num_others, 1), level * share / max(num_primary, 1)
