"""From the scores of conversations to what an evaluation reports."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from collabllm.evaluation.measures import DESCRIPTIVE, FIRST_REPLY_ASKS
from collabllm.evaluation.report.old_statistics import compare, estimate, holm, noise_floor

Score = Mapping[str, Any]
Group = tuple[str, int | None]
"""User and number of facts told in the opening (None for tasks without facts)."""


def aggregate(
    scores: Sequence[Score], arms: Sequence[str], reference: str, metrics: Sequence[str], seed: int
) -> dict[str, Any]:
    """Compute summaries, paired differences and over-asking from the scores of all conversations.

    Args:
        scores: Lines of the scores file.
        arms: Names, in the order of the report.
        reference: The arm that the others are compared with.
        metrics: All measures to report.
        seed: Of bootstrap and permutations.

    Returns:
        `summaries`, `differences`, `over_asking`, `terminations` and `audit`; see the README.
    """
    groups = list(dict.fromkeys((score["user"], score["num_told"]) for score in scores))
    table = _Table(scores)
    summaries = [
        table.summary(group, arm, metric, seed)
        for group in groups
        for arm in arms
        for metric in metrics
    ]
    differences = []
    for group in groups:
        for arm in arms:
            if arm != reference:
                differences += _differences(table, group, arm, reference, metrics, seed)
    return {
        "summaries": summaries,
        "differences": differences,
        "over_asking": [
            _over_asking(table, user, arm, seed)
            for user in dict.fromkeys(user for user, _ in groups)
            for arm in arms
        ],
        "terminations": _terminations(scores),
        "audit": _audit(scores),
    }


class _Table:
    """Values by group, arm, metric and task, and the reasons of those that are missing."""

    def __init__(self, scores: Iterable[Score]) -> None:
        self.values: dict[tuple[Group, str, str], dict[str, list[float]]] = defaultdict(dict)
        self.missing: dict[tuple[Group, str, str], Counter[str]] = defaultdict(Counter)
        for score in scores:
            group = (score["user"], score["num_told"])
            for metric, value in score["values"].items():
                if value is not None:
                    rollouts = self.values[group, score["arm"], metric]
                    rollouts.setdefault(score["task_id"], []).append(value)
            for metric, reason in score["missing"].items():
                self.missing[group, score["arm"], metric][reason] += 1

    def summary(self, group: Group, arm: str, metric: str, seed: int) -> dict[str, Any]:
        values = self.values.get((group, arm, metric), {})
        missing = self.missing.get((group, arm, metric), Counter())
        found = asdict(estimate(values, seed)) if values else {"mean": None}
        return {
            "user": group[0],
            "num_told": group[1],
            "arm": arm,
            "metric": metric,
            **found,
            "num_missing": sum(missing.values()),
            "missing_reasons": dict(missing),
            "noise_floor": noise_floor(values) if values else None,
        }


def _differences(
    table: _Table, group: Group, arm: str, reference: str, metrics: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Compare an arm with the reference in every metric.

    `p_holm` is corrected for the number of quality metrics; None for `DESCRIPTIVE` ones.
    """
    found = []
    for metric in metrics:
        first = table.values.get((group, arm, metric), {})
        second = table.values.get((group, reference, metric), {})
        if first.keys() & second.keys():
            named = {"user": group[0], "num_told": group[1], "arm": arm, "reference": reference}
            found.append({**named, "metric": metric, **asdict(compare(first, second, seed))})
    tested = [d for d in found if d["metric"] not in DESCRIPTIVE]
    adjusted = holm([d["p_value"] for d in tested])
    by_metric = {d["metric"]: p for d, p in zip(tested, adjusted, strict=True)}
    return [{**d, "p_holm": by_metric.get(d["metric"])} for d in found]


def _over_asking(table: _Table, user: str, arm: str, seed: int) -> dict[str, Any]:
    """Collect how often the first reply asks, by the number of facts that the opening tells."""
    curve = []
    for (name, num_told), other, metric in table.values:
        if (name, other, metric) == (user, arm, FIRST_REPLY_ASKS) and num_told is not None:
            values = table.values[(name, num_told), arm, metric]
            curve.append({"num_told": num_told, **asdict(estimate(values, seed))})
    curve.sort(key=lambda point: point["num_told"])
    vague = next((point for point in curve if point["num_told"] == 0), None)
    complete = curve[-1] if len(curve) > 1 else None
    return {"user": user, "arm": arm, "needed": vague, "needless": complete, "curve": curve}


def _terminations(scores: Iterable[Score]) -> list[dict[str, Any]]:
    counts: dict[tuple[str, int | None, str], Counter[str]] = defaultdict(Counter)
    for score in scores:
        key = (score["user"], score["num_told"], score["arm"])
        counts[key][score["termination_reason"]] += 1
    return [
        {"user": user, "num_told": known, "arm": arm, "counts": dict(found)}
        for (user, known, arm), found in counts.items()
    ]


def _audit(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Return each user's rates of simulator faults, over all arms."""
    found: dict[str, list[Mapping[str, bool]]] = defaultdict(list)
    for score in scores:
        found[score["user"]].append(score["audit"])
    return [
        {"user": user, **{name: sum(a[name] for a in audits) / len(audits) for name in audits[0]}}
        for user, audits in found.items()
    ]
