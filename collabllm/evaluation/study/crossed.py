"""The difference of two arms with people and tasks as crossed samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from collabllm.evaluation.statistics import Floats, Ints

MIN_GROUPS = 6
_ROUNDS = 200


@dataclass(frozen=True)
class Crossed:
    """A mean difference with its interval over people and tasks; None where either are few."""

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

    Grades are compared after the means of people and of tasks are taken out. The variance counts
    grades of one person, and grades on one task, as dependent on each other. The grades' own
    variance is in both sums and stays there twice: where each person has few tasks, the errors of
    a block move together, and to take it off left intervals that cover 88% instead of 95%.

    Args:
        ratings: Ratings of two arms only.
        level: Level of the interval.

    Returns:
        None where no person and task tell the arms apart.

    Source: Cameron, Gelbach and Miller, "Robust Inference with Multiway Clustering", 2011.
    """
    people = _numbers([rating.person for rating in ratings])
    tasks = _numbers([rating.task for rating in ratings])
    arms = _centre(np.array([rating.is_arm for rating in ratings], dtype=float), people, tasks)
    values = _centre(np.array([rating.value for rating in ratings], dtype=float), people, tasks)
    weight = float(arms @ arms)
    if weight < 1e-9:
        return None
    mean = float(arms @ values) / weight
    errors = arms * (values - mean * arms)
    groups = [int(people.max()) + 1, int(tasks.max()) + 1]
    by_person, by_task = (_sum_of_squares(errors, g) for g in (people, tasks))
    both = by_person + by_task
    if min(groups) < MIN_GROUPS:
        return Crossed(mean, None, None, *groups)
    fewest = min(groups)
    half = math.sqrt(both * fewest / (fewest - 1)) / weight
    half *= float(t.ppf(0.5 + level / 2, fewest - 1))
    return Crossed(mean, mean - half, mean + half, *groups)


def _numbers(names: Sequence[str]) -> Ints:
    known = {name: idx for idx, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names])


def _centre(values: Floats, *groupings: Ints) -> Floats:
    """Take out the means of several groupings, by turns until they are gone."""
    for _ in range(_ROUNDS):
        before = values
        for groups in groupings:
            means = np.bincount(groups, values) / np.bincount(groups)
            values = values - means[groups]
        if np.abs(values - before).max(initial=0) < 1e-12:
            break
    return values


def _sum_of_squares(errors: Floats, groups: Ints) -> float:
    return float((np.bincount(groups, errors) ** 2).sum())
