"""Intervals of means and of paired differences that stay honest for few, rare or clustered tasks.

All functions take whole batches. Values stand in the last two axes, [..., tasks, seeds]: a task's
value is the mean over its rollouts, so repeats do not pretend to be new tasks; the seeds are
trainings of one recipe. Tasks of one cluster (a domain) are not independent, `clusters` says which
belong together. docs/evaluation.md has the coverage of every interval, by simulation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtri, stdtrit  # a tenth of the time of scipy.stats

MIN_UNITS = 6
"""Fewer clusters give no interval: with 5, no sign-flip test can reach p < 0.05."""

_STUDENT_UNITS = 4
"""From so many clusters on, whose differences are neither all 0 nor all 1, Student's is right."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Moments:
    """A mean over tasks and the variance of that mean, with their degrees of freedom.

    `num_active` counts the clusters in which not all is 0, and not all is 1, whichever are fewer.
    """

    mean: Floats  # [...]
    variance: Floats  # [...]
    df: Floats  # [...]
    num_active: Ints  # [...]
    num_clusters: int
    num_seeds: int


def moments(values: Floats, clusters: Ints) -> Moments:
    """Estimate mean and variance, robust to clusters of tasks and to seeds.

    Args:
        values: Shape [..., tasks, seeds], in any unit.
        clusters: Shape [tasks], the cluster of each task.

    Source: Bell and McCaffrey, "Bias reduction in standard errors", 2002, for a mean (CR2, with
    Satterthwaite's degrees of freedom); seeds as a second level.
    """
    num_tasks, num_seeds = values.shape[-2:]
    sizes = sum_groups(np.ones(num_tasks), clusters)
    tasks = values.mean(axis=-1)  # [..., tasks]
    mean = tasks.mean(axis=-1)
    scale = 1 / np.maximum(1 - sizes / num_tasks, 1 / num_tasks)  # one cluster alone has no spread
    sums = sum_groups(tasks - mean[..., None], clusters)
    variance = (sums**2 * scale).sum(axis=-1) / num_tasks**2
    df = np.full(mean.shape, _satterthwaite(sizes, scale))
    if num_seeds > 1:
        variance, df = _add_seeds(values, variance, df)
    off_zero = (sum_groups(np.abs(tasks) > 0, clusters) > 0).sum(axis=-1)
    off_one = (sum_groups(np.abs(1 - tasks) > 1e-12, clusters) > 0).sum(axis=-1)
    active = np.minimum(off_zero, off_one)
    return Moments(
        mean, np.where(variance > 1e-24, variance, 0.0), df, active, len(sizes), num_seeds
    )


def mean_interval(
    values: Floats,
    clusters: Ints,
    *,
    bounded: bool,
    independent: bool = False,
    level: float = 0.95,
) -> tuple[Floats, Floats]:
    """Return the interval of a mean.

    Args:
        values: Shape [..., tasks, seeds].
        clusters: Shape [tasks].
        bounded: The values are shares in [0, 1]: Wilson's interval with the effective number of
            tasks, so that 0 of 28 has an upper limit. Others get Student's, of the logarithm of the
            mean where none is negative: of few skewed values its upper limit is not too low.
        independent: The values are 0 or 1, one per task: the effective number is that of the tasks.
        level: Level of the interval.

    Source: Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", 2001 (Wilson,
    corrected for small counts); Korn and Graubard, 1998 (effective numbers).
    """
    found = moments(values, clusters)
    if not bounded:
        return _log_student(found, values.min(axis=(-2, -1)), level)
    if independent and found.num_clusters == values.shape[-2]:
        number = np.full(found.mean.shape, float(found.num_clusters))
        return _wilson(found.mean, number, float(ndtri(0.5 + level / 2)), level)
    return _effective_wilson(found, _active_df(found), level)


def difference_interval(
    values: Floats, clusters: Ints, *, bounded: bool, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Return the interval of a mean paired difference.

    Args:
        values: Differences by task, shape [..., tasks, seeds].
        clusters: Shape [tasks].
        bounded: Both sides are shares in [0, 1]: where few differences are neither 0 nor 1, the
            limits come from those of the mean gain and of the mean loss. Others get Student's.
        level: Level of the interval.

    Source: Zou and Donner, "Construction of confidence limits about effect measures", 2008.
    """
    whole = moments(values, clusters)
    student = _student(whole, level)
    if not bounded:
        return student
    gain = moments(np.maximum(values, 0), clusters)
    loss = moments(np.maximum(-values, 0), clusters)
    product = np.sqrt(gain.variance * loss.variance)
    covariance = (gain.variance + loss.variance - whole.variance) / 2
    correlation = np.where(product > 0, covariance / np.where(product > 0, product, 1), 0.0)
    alone = whole.num_clusters == values.shape[-2]
    gain_df, loss_df = (whole.df if alone else _active_df(part) for part in (gain, loss))
    gain_low, gain_high = _effective_wilson(gain, gain_df, level)
    loss_low, loss_high = _effective_wilson(loss, loss_df, level)
    down, up = gain.mean - gain_low, gain_high - gain.mean
    loss_down, loss_up = loss.mean - loss_low, loss_high - loss.mean
    low = whole.mean - _combine(down, loss_up, correlation)
    high = whole.mean + _combine(up, loss_down, correlation)
    graded = moments(np.abs(values), clusters).num_active >= _STUDENT_UNITS
    graded &= whole.variance > 0
    low, high = np.where(graded, student[0], low), np.where(graded, student[1], high)
    return np.maximum(low, -1), np.minimum(high, 1)


def smallest_detectable(
    half_width: float, df: float, *, level: float = 0.05, power: float = 0.8
) -> float:
    """Return the smallest true difference that a test at this level finds with this power.

    Args:
        half_width: Half width of the 95% interval that these tasks gave.
        df: Its degrees of freedom.
        level: Level of the test, after correction for the others.
        power: Wanted power, in (0, 1).
    """
    wanted = float(stdtrit(df, 1 - level / 2) + stdtrit(df, power))
    return half_width * wanted / float(stdtrit(df, 0.975))


def noise_floor(tasks: Mapping[str, Sequence[float]]) -> float | None:
    """Return the standard deviation of an arm's mean between whole repeats of the evaluation.

    Args:
        tasks: Values of the rollouts, by task.

    Returns:
        From the spread of the rollouts within each task, for as many rollouts as there are; None
        where no task has two.
    """
    spreads = [float(np.var(values, ddof=1)) for values in tasks.values() if len(values) > 1]
    if not spreads:
        return None
    number = len(tasks)
    inverse = sum(1 / len(values) for values in tasks.values() if values) / number
    return math.sqrt(float(np.mean(spreads)) * inverse / number)


def sum_groups(values: Any, groups: Ints) -> Floats:
    """Add up the values of each group, in the order of the groups' numbers.

    Args:
        values: Shape [..., members].
        groups: Shape [members].

    Returns:
        Shape [..., groups].
    """
    order = np.argsort(groups, kind="stable")
    sorted_ = np.asarray(groups)[order]
    starts = np.flatnonzero(np.diff(sorted_, prepend=sorted_[:1] - 1))
    return np.asarray(np.add.reduceat(np.asarray(values, float)[..., order], starts, axis=-1))


def one_hot(clusters: Ints) -> Floats:
    """Return which task belongs to which cluster, as 0 and 1, shape [tasks, clusters]."""
    names, idx = np.unique(clusters, return_inverse=True)
    return np.asarray(np.eye(len(names))[idx])


def _add_seeds(values: Floats, variance: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Add the variance between trainings, which few of them tell badly.

    The degrees of freedom are those at which the 95% quantile makes the half width that the two
    parts give with a quantile each: a sum of variances takes too few trainings for many. What the
    tasks make of the spread is taken off, but of two trainings half of it: they know it so badly
    that they would often be left with none.
    """
    num_seeds = values.shape[-1]
    share = 0.5 if num_seeds == 2 else 1.0
    own = values.mean(axis=-2).var(axis=-1, ddof=1) - share * seeds_noise(values)
    extra = np.maximum(own, 0) / num_seeds
    total: Floats = variance + extra
    square = _quantile(df, 0.95) ** 2 * variance + _quantile(num_seeds - 1.0, 0.95) ** 2 * extra
    quantile = np.sqrt(square / np.where(total > 0, total, 1))
    known = np.geomspace(1, 1e5, 400)  # df, whose quantiles fall
    df = np.asarray(np.interp(-quantile, -_quantile(known, 0.95), known))
    return total, df


def seeds_noise(values: Floats) -> Floats:
    """Return the variance that tasks alone make between the means of trainings that are alike.

    Args:
        values: Shape [..., tasks, seeds], two seeds or more.
    """
    num_tasks, num_seeds = values.shape[-2:]
    tasks, seeds = values.mean(axis=-1, keepdims=True), values.mean(axis=-2, keepdims=True)
    rest = values - tasks - seeds + values.mean(axis=(-2, -1), keepdims=True)
    noise = (rest**2).sum(axis=(-2, -1)) / max(num_tasks - 1, 1) / (num_seeds - 1)
    return np.asarray(noise / num_tasks)


def _satterthwaite(sizes: Floats, scale: Floats) -> float:
    """Return the degrees of freedom: the fewer of tasks alike and unlike within their clusters.

    They are trace(M)^2 / sum(M^2) for M = R C R (unlike) and M = R C C R (alike), with R the roots
    of `scale` on a diagonal and C = diag(sizes) - sizes sizes' / total. Written out, the traces and
    sums need no matrix, whose product would take the cube of the clusters.
    """
    total, square = sizes.sum(), (sizes**2).sum()
    own = scale * (sizes - sizes**2 / total)
    weights = scale * sizes**2 / total
    unlike = (own**2).sum() + weights.sum() ** 2 - (weights**2).sum()
    # C C is diag(sizes^2) + B with B_ij = s_i s_j (k - (s_i + s_j) / total).
    k = square / total**2
    of_b = sizes**2 * (k - 2 * sizes / total)
    second, third, fourth = ((scale * sizes**power).sum() for power in (2, 3, 4))
    alike = k**2 * second**2 - 4 * k * second * third / total
    alike += 2 * (second * fourth + third**2) / total**2
    alike += (scale**2 * sizes**2 * (sizes**2 + 2 * of_b)).sum()
    traces = own.sum(), (scale * (sizes**2 + of_b)).sum()
    found = [t**2 / m for t, m in zip(traces, (unlike, alike), strict=True) if m > 1e-20 and t > 0]
    return max(float(min(found)), 1.0) if found else 1.0


def _active_df(found: Moments) -> Floats:
    """Return fewer degrees of freedom where little happened: a variance of zeros says little."""
    return np.asarray(np.minimum(found.df, np.maximum(found.num_active, 1) + 2))


def _effective_wilson(found: Moments, df: Floats, level: float) -> tuple[Floats, Floats]:
    """Return Wilson's interval for as many independent tasks as give the same variance."""
    spread = found.mean * (1 - found.mean)
    moves = found.variance > 0
    number = np.where(moves, spread / np.where(moves, found.variance, 1), 1.0)
    number = np.maximum(number, found.num_clusters if found.num_seeds == 1 else 1)
    low, high = _wilson(found.mean, number, _quantile(df, level), level)
    # All alike: so many others may still be otherwise, as in the rule of three.
    unseen = 1 - ((1 - level) / 2) ** (1 / found.num_clusters)
    low = np.where(moves, low, found.mean * (1 - unseen))
    return low, np.where(moves, high, found.mean + (1 - found.mean) * unseen)


def _student(found: Moments, level: float) -> tuple[Floats, Floats]:
    half = _quantile(found.df, level) * np.sqrt(found.variance)
    return found.mean - half, found.mean + half


def _log_student(found: Moments, least: Floats, level: float) -> tuple[Floats, Floats]:
    """Return Student's interval of the logarithm of the mean (delta method), where it has one.

    Args:
        found: Of the mean.
        least: The least value, shape [...].
        level: Of the interval.
    """
    low, high = _student(found, level)
    positive = (least >= 0) & (found.mean > 0)
    factor = np.exp(np.where(positive, high - found.mean, 0) / np.where(positive, found.mean, 1))
    low = np.where(positive, found.mean / factor, low)
    return low, np.where(positive, found.mean * factor, high)


def _wilson(
    mean: Floats, number: Floats, quantile: Floats | float, level: float
) -> tuple[Floats, Floats]:
    square = quantile**2 / number
    center = (mean + square / 2) / (1 + square)
    half = np.sqrt(square * (mean * (1 - mean) + square / 4)) / (1 + square)
    low = np.minimum(center - half, _small_count(mean, number, level))
    high = np.maximum(center + half, 1 - _small_count(1 - mean, number, level))
    return np.maximum(low, 0), np.minimum(high, 1)


def _small_count(mean: Floats, number: Floats, level: float) -> Floats:
    """Return the lower limit for counts of one to three, where Wilson's is too high."""
    count = mean * number
    few = (count > 0) & (count < np.where(number > 50, 3.5, 2.5))
    limit = gammaincinv(np.where(few, count, 1), 1 - level) / number
    return np.where(few, limit, 1.0)


def _combine(first: Floats, second: Floats, correlation: Floats) -> Floats:
    squared = first**2 + second**2 - 2 * correlation * first * second
    return np.sqrt(np.maximum(squared, 0))


def _quantile(df: Floats | float, level: float) -> Floats:
    return np.asarray(stdtrit(df, 0.5 + level / 2))
