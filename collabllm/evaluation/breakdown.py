"""What results hold beside means and differences: ranks, the asking curve, endings, progress."""

from collections import Counter, defaultdict

import numpy as np

from collabllm.evaluation.measures import FIRST_REPLY_ASKS, direction
from collabllm.evaluation.plan import DEALT, Plan
from collabllm.evaluation.results import (
    OPENINGS,
    POOLED,
    AskingPoint,
    Difference,
    Endings,
    Opening,
    Outcome,
    Progress,
    Ranking,
)
from collabllm.evaluation.score_table import (
    ScoreTable,
    Slice,
    by_task,
    estimate,
    number_clusters,
    shared_places,
)
from collabllm.simulation.audit import AuditRates

_MAX_SHARES = 6


def rank(plan: Plan, outcome: Outcome, users: list[str], differences: list[Difference]) -> Ranking:
    """Sort the arms by their paired differences with the reference, for each user."""
    sign = direction(outcome.metric, outcome.opening, plan.lower_is_better) or 1
    of_outcome = [
        d for d in differences if (d.metric, d.opening) == (outcome.metric, outcome.opening)
    ]
    by_user = {}
    for user in users:
        scores = {plan.reference: 0.0} if any(d.user == user for d in of_outcome) else {}
        for d in of_outcome:
            if (d.user, d.reference) == (user, plan.reference):
                scores[d.arm] = d.mean * sign
        by_user[user] = sorted(scores, key=lambda arm: -scores[arm])
    signs = defaultdict(set)
    for d in of_outcome:
        if d.user != POOLED and d.mean != 0:
            signs[d.arm, d.reference].add(d.mean > 0)
    return Ranking(
        outcome.metric, outcome.opening, by_user, any(len(found) > 1 for found in signs.values())
    )


def asking_curve(table: ScoreTable) -> list[AskingPoint]:
    """Collect how often first replies ask, by the share of facts that the opening tells."""
    plan = table.plan
    shares = sorted({round(v.share_told, 3) for v in plan.variants if v.num_facts})
    bins = {s: s for s in shares}
    if len(shares) > _MAX_SHARES:  # tasks of many sizes: to quarters, but none and all stay apart
        bins = {s: s if s in (0, 1) else min(max(round(s * 4) / 4, 0.25), 0.75) for s in shares}
    found = []
    for user in plan.users:
        for share in sorted(set(bins.values())):
            ids = {
                v.task_id
                for v in plan.variants
                if v.num_facts and bins[round(v.share_told, 3)] == share
            }
            found += _asking_points(table, user.name, share, ids)
    return found


def _asking_points(table: ScoreTable, user: str, share: float, ids: set[str]) -> list[AskingPoint]:
    variants = [v for v in table.plan.variants if v.task_id in ids]
    clusters = {v.task: v.cluster for v in variants}
    names = list(clusters)
    where = Slice(
        [table.user_idx[user]],
        [table.variant_idx[v.task_id] for v in variants],
        [names.index(v.task) for v in variants],
        names,
        list(clusters.values()),
        np.ones((1, len(variants)), dtype=bool),
    )
    points = []
    for arm in table.plan.arms:
        values, counts = table.of_slice(arm, FIRST_REPLY_ASKS, where)
        shown = shared_places([values])
        tasks, kept = by_task(values, np.broadcast_to(shown, values.shape), where)
        if kept:
            alone = counts.shape[0] == 1 and int(counts.sum()) == len(kept)
            numbers = number_clusters([where.clusters[idx] for idx in kept])
            found = estimate(tasks, numbers, True, alone)
            mean, low, high = found["mean"], found["low"], found["high"]
            points.append(AskingPoint(arm.name, user, share, mean, low, high, len(kept)))
    return points


def count_endings(table: ScoreTable) -> list[Endings]:
    """Count how the conversations ended, by user, opening and arm in their fixed order."""
    plan = table.plan
    counts: dict[tuple[str, str, Opening], Counter[str]] = defaultdict(Counter)
    for score in table.scores:
        opening = plan.variants[table.variant_idx[score["task_id"]]].opening
        counts[score["arm"], score["user"], opening][score["termination_reason"]] += 1
    return [
        Endings(arm.name, user.name, opening, dict(sorted(counts[place].items())))
        for user in plan.users
        for opening in OPENINGS
        for arm in plan.arms
        if (place := (arm.name, user.name, opening)) in counts
    ]


def audit_users(table: ScoreTable) -> dict[str, dict[str, float]]:
    """Return each user's faults and how it talks, over all arms; the least faulty comes first."""
    rates = {user.name: AuditRates() for user in table.plan.users}
    faults: set[str] = set()
    for score in table.scores:
        if score["user"] in rates:
            rates[score["user"]].add(score["audit"], score.get("user_measures"))
            faults |= score["audit"].keys()
    means = {user: dict(sorted(found.means().items())) for user, found in rates.items()}
    ranked = sorted(means.items(), key=lambda item: sum(item[1].get(name, 0.0) for name in faults))
    return {user: found for user, found in ranked if found}


def count_progress(table: ScoreTable) -> list[Progress]:
    """Count planned, ended and failed conversations of each arm with each user.

    Of a study, count the people whom each arm was dealt to, and those who graded it.
    """
    plan = table.plan
    every, dealt = range(len(plan.variants)), plan.settings.get(DEALT, {})
    done: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for score in table.scores:
        (failed if score["failed"] else done)[score["arm"], score["user"]] += 1
    return [
        Progress(
            arm.name,
            user.name,
            max(len(arm.training_seeds), 1) * len(dealt.get(arm.name, every)) * plan.num_rollouts,
            done[arm.name, user.name],
            failed[arm.name, user.name],
        )
        for arm in plan.arms
        for user in plan.users
    ]
