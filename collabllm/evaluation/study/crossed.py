"""The difference of two arms with people and tasks as crossed samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t

from collabllm.evaluation.statistics import Floats, Ints, one_hot

MIN_GROUPS = 6
"""Fewer people, tasks or independent numbers give no interval."""

_LEAST = 1e-9  # what rounding leaves of a rating that says nothing is less


@dataclass(frozen=True)
class Crossed:
    """A mean difference with its interval over people and tasks; None where they say too little.

    People and tasks are those that say something about the two arms.
    """

    mean: float
    low: float | None
    high: float | None
    num_people: int
    num_tasks: int


@dataclass(frozen=True)
class Rating:
    """One grade: by whom, on which task, and whether with the arm in question."""

    person: str
    task: str
    is_arm: bool
    value: float


def crossed_difference(ratings: Sequence[Rating], level: float = 0.95) -> Crossed | None:
    """Estimate how much better an arm is graded, each person and task being its own control.

    Grades are compared after the means of people and of tasks are taken out; those that say nothing
    about the arms then are left out. The degrees of freedom are what people, tasks and arms leave
    of the grades, or the fewer of people and tasks less one: a Latin square on tasks of its own is
    one number or two, however many grades it has.

    Args:
        ratings: Ratings of two arms only.
        level: Level of the interval.

    Returns:
        None where no person and task tell the arms apart.

    Source: Cameron, Gelbach and Miller, "Robust Inference with Multiway Clustering", 2011.
    """
    if not ratings:
        return None
    arms, _ = _beside_people_and_tasks(ratings)
    kept = [rating for rating, arm in zip(ratings, arms, strict=True) if abs(arm) > _LEAST]
    if not kept:
        return None
    arms, values = _beside_people_and_tasks(kept)
    people, tasks = _groups(kept)
    mean = float(arms @ values) / float(arms @ arms)
    num_people, num_tasks = int(people.max()) + 1, int(tasks.max()) + 1
    num_parts, parts = _connected(people, tasks)
    left = len(kept) - (num_people + num_tasks - num_parts) - 1
    df = min(num_people - 1, num_tasks - 1, left)
    if df < MIN_GROUPS - 1:
        return Crossed(mean, None, None, num_people, num_tasks)
    rest = values - mean * arms
    if np.abs(rest).max() < _LEAST:  # all grades alike tell nothing of others
        return Crossed(mean, None, None, num_people, num_tasks)
    variance = _variance(arms, rest, left, (people, tasks), parts)
    half = float(t.ppf(0.5 + level / 2, df)) * math.sqrt(variance)
    return Crossed(mean, mean - half, mean + half, num_people, num_tasks)


def _variance(
    arms: Floats, rest: Floats, left: int, crossed: tuple[Ints, Ints], parts: Ints
) -> float:
    """Return the variance of the mean difference, the largest of three.

    The first counts grades of one person, and grades on one task, as dependent. The errors of a
    Latin square all move together, for which it is too small: by half with four arms. The second
    counts as dependent whatever people and tasks connect. Both are too small where few grades are
    left beside people and tasks; the third is that of errors which are alike and independent.

    Args:
        arms: The arms without what people and tasks explain, shape [grades].
        rest: What the arms leave of the grades, of the same shape.
        left: Degrees of freedom of the rest.
        crossed: Numbers of people and of tasks, of the same shape.
        parts: Numbers of connected parts, of the same shape.
    """
    weight = float(arms @ arms)
    fewest = min(int(numbers.max()) + 1 for numbers in crossed)
    num_parts = int(parts.max()) + 1
    by_both = sum(_sum_of_squares(arms * rest, numbers) for numbers in crossed)
    found = [by_both * fewest / (fewest - 1), weight * float(rest @ rest) / left]
    if num_parts > 1:
        found.append(_sum_of_squares(arms * rest, parts) * num_parts / (num_parts - 1))
    return max(found) / weight**2


def _groups(ratings: Sequence[Rating]) -> tuple[Ints, Ints]:
    """Number the people and the tasks of ratings."""
    return _numbers([r.person for r in ratings]), _numbers([r.task for r in ratings])


def _numbers(names: Sequence[str]) -> Ints:
    known = {name: idx for idx, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], dtype=int)


def _beside_people_and_tasks(ratings: Sequence[Rating]) -> tuple[Floats, Floats]:
    """Return arms and values of ratings without what people and tasks explain of them."""
    both = np.array([(rating.is_arm, rating.value) for rating in ratings], dtype=float)
    explaining = np.hstack([one_hot(numbers) for numbers in _groups(ratings)])
    rest = both - explaining @ np.linalg.lstsq(explaining, both)[0]
    return rest[:, 0], rest[:, 1]


def _connected(people: Ints, tasks: Ints) -> tuple[int, Ints]:
    """Number the parts that no person or task connects; return how many, and each rating's."""
    first_task = int(people.max()) + 1
    size = first_task + int(tasks.max()) + 1
    links = coo_array((np.ones(len(people)), (people, first_task + tasks)), shape=(size, size))
    number, parts = connected_components(links, directed=False)
    return int(number), parts[people]


def _sum_of_squares(errors: Floats, groups: Ints) -> float:
    return float((np.bincount(groups, errors) ** 2).sum())
