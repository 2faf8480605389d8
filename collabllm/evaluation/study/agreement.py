"""Which simulated users and metrics agree with people, on the same tasks and arms."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from collabllm.evaluation.measures import DESCRIPTIVE, direction
from collabllm.evaluation.statistics import mean_interval

Means = Mapping[tuple[str, str], float]
"""By task and arm."""


@dataclass(frozen=True)
class Agreement:
    """How one metric with one simulated user at one opening orders arms, beside a grade of people.

    Of `num_pairs` (a task and two arms that differ in both), `num_same` have the same order. The
    pairs of a task are not independent: [low, high] is of the mean of the shares of `num_tasks`.
    `rank_correlation` is over all `num_cells` means (None where constant).
    """

    user: str
    metric: str
    opening: str
    grade: str
    num_tasks: int
    num_pairs: int
    num_same: int
    low: float
    high: float
    rank_correlation: float | None
    num_cells: int

    def __str__(self) -> str:
        """Write it as a sentence."""
        if not self.num_pairs:
            return (
                f"{self.metric} with user {self.user} and people's {self.grade} share no task on "
                f"which two arms differ in both (opening: {self.opening})."
            )
        rank = ""
        if self.rank_correlation is not None:
            rank = f"; rank correlation {self.rank_correlation:+.2f} over {self.num_cells} means"
        return (
            f"{self.metric} with user {self.user} orders two arms as people's {self.grade} does in "
            f"{self.num_same} of {self.num_pairs} tasks and pairs (opening: {self.opening}; share "
            f"over {self.num_tasks} task(s) between {self.low:.2f} and {self.high:.2f}){rank}."
        )


def mean_by_place(rows: Iterable[tuple[str, str, float]]) -> Means:
    """Average values by task and arm."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for task, arm, value in rows:
        found[task, arm].append(value)
    return {place: sum(values) / len(values) for place, values in found.items()}


def agree(
    user: str, metric: str, opening: str, grade: str, simulated: Means, people: Means
) -> Agreement:
    """Compare two tables of means; higher is better in both."""
    shared = sorted(simulated.keys() & people.keys())
    arms_of: dict[str, list[str]] = defaultdict(list)
    for task, arm in shared:
        arms_of[task].append(arm)
    same: dict[str, list[bool]] = defaultdict(list)
    for task, arms in arms_of.items():
        for one, other in combinations(arms, 2):
            ours = people[task, one] - people[task, other]
            theirs = simulated[task, one] - simulated[task, other]
            if ours and theirs:
                same[task].append((ours > 0) == (theirs > 0))
    low, high = 0.0, 1.0
    if same:
        shares = np.array([[sum(found) / len(found)] for found in same.values()])
        low, high = map(float, mean_interval(shares, np.arange(len(shares)), bounded=True))
    return Agreement(
        user,
        metric,
        opening,
        grade,
        len(same),
        sum(map(len, same.values())),
        sum(map(sum, same.values())),
        low,
        high,
        _rank_correlation([simulated[p] for p in shared], [people[p] for p in shared]),
        len(shared),
    )


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(spearmanr(first, second).statistic)


def compare_with_people(
    scores: Iterable[Mapping[str, Any]],
    tasks_of: Mapping[str, str],
    grades: Mapping[str, Means],
) -> list[Agreement]:
    """Compare an evaluation's scores, of each user, metric and opening, with people's grades.

    Args:
        scores: Lines of the evaluation's scores file.
        tasks_of: By the id of an opened task, the task.
        grades: People's means, by the name of the grade.
    """
    rows: dict[tuple[str, str, str], list[tuple[str, str, float]]] = defaultdict(list)
    for score in scores:
        task, opening = tasks_of.get(score["task_id"]), score.get("opening", "none")
        for metric, value in score["values"].items():
            sign = direction(metric, opening)
            if task is not None and value is not None and metric not in DESCRIPTIVE and sign:
                rows[score["user"], metric, opening].append((task, score["arm"], sign * value))
    return [
        agree(user, metric, opening, grade, mean_by_place(found), means)
        for (user, metric, opening), found in sorted(rows.items())
        for grade, means in grades.items()
    ]
