"""The scores of an evaluation as arrays by training seed, user and opened task."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from collabllm.evaluation.measures import DESCRIPTIVE
from collabllm.evaluation.plan import DEALT, Plan
from collabllm.evaluation.results import NOT_APPLICABLE, NOT_RUN, POOLED, ArmInfo, Opening
from collabllm.evaluation.statistics import MIN_UNITS, Floats, mean_interval, sum_groups

Score = Mapping[str, Any]
_HAS_VALUE, _FAILED, _HAS_NO_MEANING = 1, 2, -1  # 0: nobody ran it


@dataclass(frozen=True, eq=False)
class Slice:
    """The planned places of a user (or all) at one opening, where a metric has a meaning.

    `tasks` has the position of each variant's task in `names`.
    """

    users: list[int]
    variants: list[int]
    tasks: list[int]
    names: list[str]
    clusters: list[str]
    applicable: Any  # bool, [users, variants]


class ScoreTable:
    """Means over rollouts, and how many values each has, by (seed, user, variant)."""

    def __init__(self, plan: Plan, scores: Iterable[Score]) -> None:
        self.plan = plan
        self.scores: list[Score] = []  # those that the plan knows
        self.user_idx = {user.name: idx for idx, user in enumerate(plan.users)}
        self.variant_idx = {v.task_id: idx for idx, v in enumerate(plan.variants)}
        self._shape = len(plan.users), len(plan.variants)
        self._lists: dict[tuple[str, str], dict[tuple[int, int, int], list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._reasons: dict[tuple[str, str], dict[tuple[int, int], Counter[str]]] = defaultdict(
            lambda: defaultdict(Counter)
        )
        self._tampered: dict[tuple[str, str], Counter[tuple[int, int]]] = defaultdict(Counter)
        self._applies: dict[str, Any] = {}
        self._meaningless: dict[tuple[str, str], Counter[tuple[int, int, int]]] = defaultdict(
            Counter
        )
        self._ranges: dict[str, tuple[float, float]] = {}
        arms = {arm.name: arm for arm in plan.arms}
        for score in scores:
            if score["arm"] in arms and score["task_id"] in self.variant_idx:
                self._add(arms[score["arm"]], score)
        self._filled: dict[tuple[str, str, Slice, float], Floats] = {}
        self._means: dict[tuple[str, str], tuple[Floats, Floats]] = {}

    def _add(self, arm: ArmInfo, score: Score) -> None:
        user, variant = self.user_idx.get(score["user"]), self.variant_idx[score["task_id"]]
        seed = seed_idx(arm, score.get("training_seed", ""))
        if user is None or seed is None or score["rollout_idx"] >= self.plan.num_rollouts:
            return
        self.scores.append(score)
        for metric, value in score["values"].items():
            applies = self._applies.setdefault(metric, np.zeros(self._shape, dtype=int))
            if value is not None and np.isfinite(value):
                self._lists[arm.name, metric][seed, user, variant].append(float(value))
                low, high = self._ranges.get(metric, (value, value))
                self._ranges[metric] = min(low, value), max(high, value)
                applies[user, variant] = _HAS_VALUE
            elif metric in score["missing"] or value is not None:
                reason = score["missing"].get(metric, "not a number")
                self._reasons[arm.name, metric][user, variant][reason] += 1
                applies[user, variant] = applies[user, variant] or _FAILED
            else:
                self._meaningless[arm.name, metric][seed, user, variant] += 1
                if applies[user, variant] != _HAS_VALUE:
                    applies[user, variant] = _HAS_NO_MEANING
        for metric in score.get("tampered", ()):
            self._tampered[arm.name, metric][user, variant] += 1

    def bounded(self, metric: str) -> bool:
        """Tell whether a metric is a share: all its values lie in [0, 1], and must."""
        if metric in (self.plan.without_limits or ()):
            return False
        low, high = self._ranges.get(metric, (0.0, 1.0))
        return metric not in DESCRIPTIVE and low >= 0 and high <= 1

    def limits(self, metric: str) -> tuple[float, float]:
        """Return the least and the greatest value that a missing one could have had."""
        return (0.0, 1.0) if self.bounded(metric) else self._ranges.get(metric, (0.0, 0.0))

    def slice(self, user: str, opening: Opening, metric: str) -> Slice | None:
        """Return the planned places; None where the metric has no meaning in any of them."""
        users = list(range(self._shape[0])) if user == POOLED else [self.user_idx[user]]
        variants = [i for i, v in enumerate(self.plan.variants) if v.opening == opening]
        applies = self._applies.get(metric, np.zeros(self._shape, dtype=int))
        found = applies[np.ix_(users, variants)]
        if not (found == _HAS_VALUE).any() and (
            (found == _HAS_NO_MEANING).any() or not (found == _FAILED).any()
        ):
            return None
        kept = [i for i in range(len(variants)) if (found[:, i] >= 0).any()]
        planned = [self.plan.variants[variants[i]] for i in kept]
        clusters = {variant.task: variant.cluster for variant in planned}
        names = list(clusters)
        return Slice(
            users,
            [variants[i] for i in kept],
            [names.index(variant.task) for variant in planned],
            names,
            list(clusters.values()),
            found[:, kept] >= 0,  # what nobody ran yet counts as planned
        )

    def dealt(self, where: Slice, *arms: ArmInfo) -> Slice:
        """Return the places of a study's slice that all of some arms were dealt to, if any."""
        of_arms = self.plan.settings.get(DEALT)
        if of_arms is None:
            return where
        everywhere = set(where.variants).intersection(*(of_arms[arm.name] for arm in arms))
        kept = [idx for idx, variant in enumerate(where.variants) if variant in everywhere]
        if not kept:
            return where
        tasks = sorted({where.tasks[idx] for idx in kept})
        return replace(
            where,
            variants=[where.variants[idx] for idx in kept],
            tasks=[tasks.index(where.tasks[idx]) for idx in kept],
            names=[where.names[task] for task in tasks],
            clusters=[where.clusters[task] for task in tasks],
            applicable=where.applicable[:, kept],
        )

    def applying(self, where: Slice, metric: str, *arms: ArmInfo) -> Slice:
        """Return a slice without the places where an arm's conversations have no value to miss."""
        applicable = where.applicable.copy()
        for arm in arms:
            _, counts = self.of_slice(arm, metric, where)
            applicable &= (self._planned(arm, metric, where, counts) > 0).all(axis=0)
        same = not applicable.any() or (applicable == where.applicable).all()
        return where if same else replace(where, applicable=applicable)

    def _planned(self, arm: ArmInfo, metric: str, where: Slice, counts: Floats) -> Floats:
        """Return how many values were planned and can be, [seeds, users, variants]."""
        without = np.zeros((counts.shape[0], *self._shape))
        for place, number in self._meaningless.get((arm.name, metric), {}).items():
            without[place] = number
        found = without[np.ix_(range(counts.shape[0]), where.users, where.variants)]
        return np.asarray(np.maximum(counts, self.plan.num_rollouts - found))

    def means(self, arm: ArmInfo, metric: str) -> tuple[Floats, Floats]:
        """Return means over rollouts (NaN for none) and their numbers, [seeds, users, variants]."""
        key = arm.name, metric
        if key not in self._means:
            shape = (max(len(arm.training_seeds), 1), *self._shape)
            means, counts = np.full(shape, np.nan), np.zeros(shape)
            for place, values in self._lists.get(key, {}).items():
                means[place], counts[place] = float(np.mean(values)), len(values)
            self._means[key] = means, counts
        return self._means[key]

    def of_slice(self, arm: ArmInfo, metric: str, where: Slice) -> tuple[Floats, Floats]:
        """Return `means` within a slice; NaN where the metric has no meaning."""
        means, counts = self.means(arm, metric)
        place = np.ix_(range(means.shape[0]), where.users, where.variants)
        return np.where(where.applicable, means[place], np.nan), counts[place]

    def filled(self, arm: ArmInfo, metric: str, where: Slice, fill: float) -> Floats:
        """Return the tasks' means with a value in place of every missing one.

        Returns:
            Shape [tasks, seeds].
        """
        key = arm.name, metric, where, fill
        if key not in self._filled:
            means, counts = self.of_slice(arm, metric, where)
            planned = self._planned(arm, metric, where, counts)
            planned = np.where(planned > 0, planned, self.plan.num_rollouts)
            sums = np.where(counts > 0, np.nan_to_num(means) * counts, 0.0)
            whole = (sums + (planned - counts) * fill) / planned
            shown = np.broadcast_to(where.applicable, whole.shape)
            self._filled[key] = by_task(whole, shown, where)[0]
        return self._filled[key]

    def rollouts(self, arm: ArmInfo, metric: str, where: Slice) -> dict[str, list[float]]:
        """Return the single values of each place that has some."""
        wanted_users, wanted = set(where.users), set(where.variants)
        return {
            str(place): values
            for place, values in self._lists.get((arm.name, metric), {}).items()
            if place[1] in wanted_users and place[2] in wanted
        }

    def num_tampered(self, arm: ArmInfo, metric: str, where: Slice) -> int:
        """Count the values that are 0 because a reply attacked the metric."""
        return sum(
            number
            for (user, variant), number in self._tampered.get((arm.name, metric), {}).items()
            if user in where.users and variant in where.variants
        )

    def reasons(self, arm: ArmInfo, metric: str, where: Slice) -> dict[str, int]:
        """Count why values are missing; what was not run is among them."""
        found: Counter[str] = Counter()
        _, counts = self.of_slice(arm, metric, where)
        planned = int(where.applicable.sum()) * counts.shape[0] * self.plan.num_rollouts
        for (user, variant), reasons in self._reasons.get((arm.name, metric), {}).items():
            if user in where.users and variant in where.variants:
                found.update(reasons)
        can_be = (self._planned(arm, metric, where, counts) * where.applicable).sum()
        if planned > can_be:
            found[NOT_APPLICABLE] = planned - int(can_be)
        not_run = planned - int((counts * where.applicable).sum()) - sum(found.values())
        if not_run > 0:
            found[NOT_RUN] = not_run
        return dict(found)


def score_key(score: Score) -> tuple[str, str, str, str, int]:
    """Return which conversation a line of the scores file is about."""
    seed = score.get("training_seed", "")
    return score["arm"], seed, score["user"], score["task_id"], score["rollout_idx"]


def seed_idx(arm: ArmInfo, training_seed: str) -> int | None:
    """Return the position of a training seed; None for one that the arm does not have."""
    if not arm.training_seeds:
        return 0
    return arm.training_seeds.index(training_seed) if training_seed in arm.training_seeds else None


def by_task(values: Floats, shown: Any, where: Slice) -> tuple[Floats, list[int]]:
    """Average the places of each task.

    Args:
        values: Shape [seeds, users, variants].
        shown: Bool, of the same shape: what counts.
        where: Says which task a variant belongs to.

    Returns:
        Means of the tasks that have a place, [tasks, seeds], and their positions in `where.names`.
    """
    tasks = np.array(where.tasks)
    sums = sum_groups(np.where(shown, values, 0.0).sum(axis=1), tasks)  # [seeds, tasks]
    counts = sum_groups(shown.sum(axis=1), tasks)
    kept = [int(idx) for idx in np.flatnonzero(counts.min(axis=0) > 0)]
    return (sums[:, kept] / counts[:, kept]).T, kept


def shared_places(tables: Sequence[Floats]) -> Any:
    """Return where all of some tables [seeds, users, variants] have a value, [users, variants]."""
    return np.logical_and.reduce([~np.isnan(table).any(axis=0) for table in tables])


def estimate(tasks: Floats, clusters: Any, bounded: bool, alone: bool) -> dict[str, Any]:
    """Estimate a mean, with an interval or, below 6 clusters, with the values.

    Args:
        tasks: Shape [tasks, seeds].
        clusters: Shape [tasks].
        bounded: As in `mean_interval`.
        alone: Each task has one conversation.
    """
    mean = float(tasks.mean())
    if len(set(clusters)) < MIN_UNITS:
        return {"mean": mean, "low": None, "high": None, "values": shown_values(tasks)}
    binary = alone and bool(np.isin(tasks, (0.0, 1.0)).all())
    low, high = mean_interval(tasks, clusters, bounded=bounded, independent=binary)
    return {"mean": mean, "low": float(low), "high": float(high), "values": []}


def number_clusters(names: Sequence[str]) -> Any:
    """Number the clusters in order of appearance."""
    known = {name: idx for idx, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], dtype=int)


def shown_values(values: Floats) -> list[float]:
    """Return the tasks' means for people, who see few of them."""
    return [round(float(value), 6) for value in values.mean(axis=1)]
