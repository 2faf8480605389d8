"""From the plan and the scores of an evaluation to its typed results."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from collabllm.evaluation.breakdown import (
    asking_curve,
    audit_users,
    count_endings,
    count_progress,
    rank,
)
from collabllm.evaluation.hypotheses import (
    EXACT_UNITS,
    correct,
    first_levels,
    p_value_of,
    smallest_possible,
)
from collabllm.evaluation.measures import BUILT_IN, DESCRIPTIVE, direction
from collabllm.evaluation.notes import write_notes
from collabllm.evaluation.plan import Plan, read_plan
from collabllm.evaluation.power import smallest_of_flips, smallest_of_mcnemar
from collabllm.evaluation.results import (
    OPENINGS,
    POOLED,
    ArmInfo,
    Cell,
    Difference,
    MetricInfo,
    Opening,
    Results,
)
from collabllm.evaluation.score_table import (
    Score,
    ScoreTable,
    Slice,
    by_task,
    estimate,
    number_clusters,
    score_key,
    shared_places,
    shown_values,
)
from collabllm.evaluation.statistics import (
    MIN_UNITS,
    Floats,
    difference_interval,
    noise_floor,
    smallest_detectable,
)
from collabllm.files import read_json_lines
from collabllm.servers.kept_usage import read_usage
from collabllm.servers.usage import UsageLedger

SCORES_FILE = "scores.jsonl"
_LEAST_SPREAD = 1e-12


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Read the scores of an evaluation; of two lines of one conversation the last counts."""
    file = folder / SCORES_FILE
    found = {score_key(line): line for line in read_json_lines(file)} if file.is_file() else {}
    return list(found.values())


def analyse_folder(folder: str | Path) -> Results:
    """Compute the results of a finished or interrupted evaluation anew from its files.

    Raises:
        FileNotFoundError: If the folder has no evaluation.
    """
    folder = Path(folder)
    return analyse(read_plan(folder), read_scores(folder), read_usage(folder))


def analyse(plan: Plan, scores: Iterable[Score], ledger: UsageLedger) -> Results:
    """Compute all results; nothing depends on the order of the scores."""
    table = ScoreTable(plan, scores)
    names = [user.name for user in plan.users]
    users = [POOLED, *names] if len(names) > 1 else names
    groups = [
        (user, opening, metric)
        for user in users
        for opening in OPENINGS
        for metric in [*plan.metrics, *(m for m in BUILT_IN if m not in plan.metrics)]
    ]
    slices = [(group, table.slice(*group)) for group in groups]
    found = [(group, where) for group, where in slices if where is not None]
    differences = _correct(
        [
            difference
            for group, where in found
            for pair in _pairs(plan)
            for difference in _compare(table, group, where, *pair)
        ],
        plan,
        users[0],
    )
    results = Results(
        arms=plan.arms,
        users=plan.users,
        reference=plan.reference,
        metrics=_describe_metrics(table, groups),
        primary=plan.primary,
        cells=[_cell(table, g, where, arm) for g, where in found for arm in plan.arms],
        differences=differences,
        rankings=[rank(plan, outcome, users, differences) for outcome in plan.primary],
        asking=asking_curve(table),
        endings=count_endings(table),
        audit=audit_users(table),
        progress=count_progress(table),
        num_tasks=len({v.task for v in plan.variants}),
        num_clusters=len({v.cluster for v in plan.variants}),
        cluster_by=plan.cluster_by,
        num_rollouts=plan.num_rollouts,
        tasks=plan.tasks,
        tasks_are=plan.tasks_are,
        test_set_uses=plan.test_set_uses,
        usage={name: dict(vars(used)) for name, used in ledger.sums().items()},
        num_unanswered=ledger.num_unanswered,
        cost_usd=ledger.cost_usd,
        seed=plan.seed,
        date=plan.date,
        command=plan.command,
        versions=plan.versions,
        commit=plan.commit,
        prompt_hashes=plan.prompt_hashes,
        signatures=plan.signatures,
        settings=plan.settings,
        notes=[],
        without_price=ledger.without_price,
    )
    return replace(results, notes=[*write_notes(results), *plan.notes])


def _pairs(plan: Plan) -> list[tuple[ArmInfo, ArmInfo]]:
    """Return every arm with every other once; the reference always comes second."""
    pairs = [(second, first) for first, second in combinations(plan.arms, 2)]
    return [(b, a) if a.name == plan.reference else (a, b) for a, b in pairs]


def _describe_metrics(
    table: ScoreTable, groups: list[tuple[str, Opening, str]]
) -> list[MetricInfo]:
    return [
        MetricInfo(
            metric,
            metric in DESCRIPTIVE,
            table.bounded(metric),
            {o: direction(metric, o, table.plan.lower_is_better) for o in OPENINGS},
        )
        for metric in dict.fromkeys(metric for _, _, metric in groups)
    ]


def _cell(table: ScoreTable, group: tuple[str, Opening, str], where: Slice, arm: ArmInfo) -> Cell:
    """Describe one arm; on the tasks that it shares with the reference, if that has any."""
    user, opening, metric = group
    where = table.dealt(where, arm)
    reference = next(a for a in table.plan.arms if a.name == table.plan.reference)
    values, counts = table.of_slice(arm, metric, where)
    others, _ = table.of_slice(reference, metric, where)
    shown = shared_places([values])
    if (shown & shared_places([others])).any():
        shown = shared_places([values, others])
    tasks, kept = by_task(values, np.broadcast_to(shown, values.shape), where)
    low, high = table.limits(metric)
    applying = table.applying(where, metric, arm, reference)
    reasons = table.reasons(arm, metric, where)
    rollouts = table.rollouts(arm, metric, where)
    clusters = number_clusters([where.clusters[idx] for idx in kept])
    alone = counts.shape[:2] == (1, 1) and len(kept) == int(counts[:, shown].sum())
    found: dict[str, Any] = {"mean": None, "low": None, "high": None, "values": []}
    if kept:
        found = estimate(tasks, clusters, table.bounded(metric), alone)
    return Cell(
        arm=arm.name,
        user=user,
        opening=opening,
        metric=metric,
        num_tasks=len(kept),
        num_planned=len(where.names),
        num_clusters=len(set(clusters)),
        num_values=int(counts.sum()),
        num_missing=sum(reasons.values()),
        num_tampered=table.num_tampered(arm, metric, where),
        missing_reasons=reasons,
        worst_low=float(table.filled(arm, metric, applying, low).mean()),
        worst_high=float(table.filled(arm, metric, applying, high).mean()),
        noise_floor=noise_floor(rollouts) if rollouts else None,
        **found,
    )


def _compare(
    table: ScoreTable,
    group: tuple[str, Opening, str],
    where: Slice,
    arm: ArmInfo,
    other: ArmInfo,
) -> list[Difference]:
    """Compare two arms; an empty list where they share no task with values."""
    user, opening, metric = group
    where = table.dealt(where, arm, other)
    first, second = _same_seeds(
        table.of_slice(arm, metric, where)[0], table.of_slice(other, metric, where)[0], axis=0
    )
    shown = shared_places([first, second])
    ours, kept = by_task(first, np.broadcast_to(shown, first.shape), where)
    theirs, _ = by_task(second, np.broadcast_to(shown, second.shape), where)
    if not kept:
        return []
    values = ours - theirs
    clusters = number_clusters([where.clusters[idx] for idx in kept])
    low, high = table.limits(metric)
    applying = table.applying(where, metric, arm, other)
    worst, best = (
        np.subtract(
            *_same_seeds(
                table.filled(arm, metric, applying, a),
                table.filled(other, metric, applying, b),
                axis=1,
            )
        )
        for a, b in ((low, high), (high, low))
    )
    better = direction(metric, opening, table.plan.lower_is_better)
    signs = np.sign(np.round(values.mean(axis=1), 12)) * (better or 1)
    p_value, test = None, ""
    if metric not in DESCRIPTIVE:
        p_value, test = p_value_of(values, clusters, table.plan.seed)
    return [
        Difference(
            arm=arm.name,
            reference=other.name,
            user=user,
            opening=opening,
            metric=metric,
            primary=False,
            better=better,
            mean=float(values.mean()),
            arm_mean=float(ours.mean()),
            reference_mean=float(theirs.mean()),
            p_value=p_value,
            p_corrected=None,  # by `_correct`
            test=test,
            num_tasks=len(kept),
            num_planned=len(where.names),
            num_clusters=len(set(clusters)),
            wins=int((signs > 0).sum()),
            ties=int((signs == 0).sum()),
            losses=int((signs < 0).sum()),
            worst_low=float(worst.mean()),
            worst_high=float(best.mean()),
            **_interval(values, clusters, table.bounded(metric)),
        )
    ]


def _interval(values: Floats, clusters: Any, bounded: bool) -> dict[str, Any]:
    if len(set(clusters)) < MIN_UNITS:
        none = dict.fromkeys(("low", "high", "smallest_detectable"))
        return {**none, "values": shown_values(values)}
    low, high = map(float, difference_interval(values, clusters, bounded=bounded))
    found: dict[str, Any] = {"low": low, "high": high, "smallest_detectable": None, "values": []}
    # What few trainings, or tasks that are all alike, would show depends on a spread unknown.
    if values.shape[1] == 1 and np.ptp(values) > _LEAST_SPREAD:
        half, df = (high - low) / 2, len(set(clusters)) - 1
        found["smallest_detectable"] = smallest_detectable(half, df)  # before correction
    return found


def _correct(differences: list[Difference], plan: Plan, headline_user: str) -> list[Difference]:
    """Mark the primary outcomes, correct the p-values, and say what could have been shown."""
    outcomes = {(o.metric, o.opening) for o in plan.primary}
    places = (headline_user, plan.reference)
    marked = [
        replace(
            d,
            primary=(d.metric, d.opening) in outcomes and (d.user, d.reference) == places,
        )
        for d in differences
    ]
    tested = [d for d in marked if d.p_value is not None]
    adjusted = iter(correct([d.p_value or 0.0 for d in tested], [d.primary for d in tested]))
    num_primary = sum(d.primary for d in tested)
    levels = first_levels(num_primary, len(tested) - num_primary)
    return [
        replace(
            d,
            p_corrected=None if d.p_value is None else next(adjusted),
            smallest_detectable=_detectable(d, levels[d.primary]),
        )
        for d in marked
    ]


def _detectable(d: Difference, level: float) -> float | None:
    """Return the smallest detectable difference at a level; None where nothing can be said."""
    if d.low is None or d.high is None or d.smallest_detectable is None:
        return None
    if d.p_value is None or smallest_possible(d.num_clusters, d.test) >= level:
        return None
    if d.test == "McNemar":  # the interval of few rare events says little of others' spread
        return smallest_of_mcnemar(d.reference_mean, d.num_tasks, level)
    half, df = (d.high - d.low) / 2, d.num_clusters - 1
    if d.num_clusters > EXACT_UNITS:
        return smallest_detectable(half, df, level=level)
    spread = half / float(stdtrit(df, 0.975)) * math.sqrt(d.num_clusters)
    return spread * smallest_of_flips(d.num_clusters, level)


def _same_seeds(ours: Floats, theirs: Floats, axis: int) -> tuple[Floats, Floats]:
    """Keep as many trainings as both have: they are paired in order, and one goes with all."""
    number = min(ours.shape[axis], theirs.shape[axis])
    if number == 1:
        return ours, theirs
    return ours.take(range(number), axis), theirs.take(range(number), axis)
