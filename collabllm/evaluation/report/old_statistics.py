"""Paired statistics of arms on the same tasks: intervals, p-values, noise, power.

Values come as rows of (task, rollout): every rollout of a task is one value. Tasks are the unit of
sampling: values are averaged within a task first, so repeats do not pretend to be new tasks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, t

_NUM_RESAMPLES = 2000
_EXACT_TASKS = 12

Values = Mapping[str, Sequence[float]]
"""By task, the values of its rollouts."""
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks with its confidence interval, and the number of tasks and values."""

    mean: float
    low: float
    high: float
    num_tasks: int
    num_values: int


@dataclass(frozen=True)
class Difference:
    """The paired difference of two arms over the tasks that both have.

    `p_value` is two-sided, `test` names how it was found, `tasks_needed` how many tasks would show
    a difference of this size with 80% power at the 5% level (None where it is 0).
    """

    mean: float
    low: float
    high: float
    p_value: float
    test: str
    num_tasks: int
    tasks_needed: int | None


def estimate(values: Values, seed: int = 0, level: float = 0.95) -> Estimate:
    """Estimate a mean by the bootstrap clustered by task.

    Raises:
        ValueError: If there is no value.
    """
    means = _task_means(values)
    if not len(means):
        raise ValueError("there is no value to estimate from.")
    low, high = bootstrap_interval(means, seed, level)
    num_values = sum(len(rollouts) for rollouts in values.values())
    return Estimate(float(means.mean()), low, high, len(means), num_values)


def compare(first: Values, second: Values, seed: int = 0, level: float = 0.95) -> Difference:
    """Compare two arms: first minus second, on the tasks in which both have a value.

    Binary metrics with one rollout a task get McNemar's exact test, others a permutation test of
    the signs of the task differences (exact up to 12 tasks).

    Args:
        first: Of the arm in question.
        second: Of the arm that it is compared with.
        seed: Of bootstrap and permutations.
        level: Of the interval.

    Raises:
        ValueError: If no task has a value in both arms.
    """
    shared = [task for task in first if task in second and first[task] and second[task]]
    if not shared:
        raise ValueError("the two arms share no task with values.")
    differences = np.array([np.mean(first[t]) - np.mean(second[t]) for t in shared], dtype=float)
    low, high = bootstrap_interval(differences, seed, level)
    if _is_binary(first, shared) and _is_binary(second, shared):
        p_value, test = mcnemar(differences), "McNemar"
    else:
        p_value, test = sign_permutation(differences, seed), "permutation"
    return Difference(
        float(differences.mean()),
        low,
        high,
        p_value,
        test,
        len(shared),
        tasks_needed(differences),
    )


def bootstrap_interval(means: Floats, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean, widened for small samples.

    Plain percentiles are too narrow by sqrt((n - 1) / n) and by normal instead of t quantiles; the
    tail probabilities are adjusted for both.

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4.1.
    """
    n = len(means)
    if n < 2 or np.ptp(means) == 0:
        return float(means.mean()), float(means.mean())
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, n, size=(_NUM_RESAMPLES, n))
    resampled = means[picks].mean(axis=1)  # [resamples]
    quantile = t.ppf(0.5 - level / 2, n - 1) * math.sqrt(n / (n - 1))
    tail = float(norm.cdf(quantile))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def sign_permutation(differences: Floats, seed: int = 0) -> float:
    """Return the two-sided p-value of a mean of 0 when every sign could as well be the other."""
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0
    if len(nonzero) <= _EXACT_TASKS:
        bits = np.arange(2 ** len(nonzero))[:, None] >> np.arange(len(nonzero))
        signs = 1.0 - 2.0 * (bits & 1)
        extra = 0
    else:
        generator = np.random.default_rng(seed)
        signs = generator.choice([-1.0, 1.0], size=(5 * _NUM_RESAMPLES, len(nonzero)))
        extra = 1  # the observed signs are one of the permutations
    sums = np.abs(signs @ nonzero)
    reached = int((sums >= abs(nonzero.sum()) - 1e-12).sum())
    return (reached + extra) / (len(sums) + extra)


def mcnemar(differences: Floats) -> float:
    """Return McNemar's exact two-sided p-value from differences of 1, 0 and -1."""
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def tasks_needed(differences: Floats, power: float = 0.8, level: float = 0.05) -> int | None:
    """Return how many tasks show the observed mean difference with this power, by the z test."""
    mean = abs(float(differences.mean()))
    if len(differences) < 2 or mean == 0:
        return None
    spread = float(differences.std(ddof=1))
    quantiles = float(norm.ppf(1 - level / 2) + norm.ppf(power))
    return max(2, math.ceil((quantiles * spread / mean) ** 2))


def noise_floor(values: Values) -> float | None:
    """Return the standard deviation of an arm's mean between whole repeats of the evaluation.

    From the spread of the rollouts within each task; None where no task has two.
    """
    variances = [
        float(np.var(rollouts, ddof=1)) for rollouts in values.values() if len(rollouts) > 1
    ]
    if not variances:
        return None
    return math.sqrt(float(np.mean(variances)) / len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests by Holm's step-down method, in their order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, idx in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[idx]))
        adjusted[int(idx)] = highest
    return adjusted


def _task_means(values: Values) -> Floats:
    return np.array([np.mean(rollouts) for rollouts in values.values() if rollouts], dtype=float)


def _is_binary(values: Values, tasks: Sequence[str]) -> bool:
    return all(len(values[task]) == 1 and values[task][0] in (0.0, 1.0) for task in tasks)
