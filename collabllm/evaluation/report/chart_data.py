"""What the page's own code draws: cells, differences of any two arms, the asking curve."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from collabllm.evaluation.plan import Variant
from collabllm.evaluation.report.formats import (
    OPENING_LABELS,
    format_number_of_tasks,
    format_p,
    plain,
)
from collabllm.evaluation.results import POOLED, Cell, Difference, Results

Score = Mapping[str, Any]
_VERDICTS = {"better": "better", "worse": "worse", "differs": "other", "cannot tell": "unclear"}


def chart_data(
    results: Results, variants: Mapping[str, Variant], scores: Iterable[Score]
) -> dict[str, Any]:
    """Collect the data of all charts.

    Args:
        results: Results of the evaluation.
        variants: The opened tasks, by their ids in the scores.
        scores: Its lines, for the dots of single tasks.
    """
    dots = _dots(variants, scores, pooled=len(results.users) > 1)
    both = [way for d in results.differences for way in (d, d.reversed())]
    return {
        "arms": [arm.name for arm in results.arms],
        "reference": results.reference,
        "users": [{"key": name, "label": name} for name in results.user_names],
        "openings": [{"key": key, "label": OPENING_LABELS[key]} for key in results.openings],
        "metrics": [
            {"name": m.name, "label": plain(m.name), "better": m.better} for m in results.metrics
        ],
        "cells": [_cell(cell, dots) for cell in results.cells],
        "differences": [_difference(d) for d in both],
        "asking": _asking(results),
    }


def _dots(
    variants: Mapping[str, Variant], scores: Iterable[Score], *, pooled: bool
) -> dict[Any, list[float]]:
    """Average the values of each task, by (arm, user, opening, metric)."""
    values: dict[Any, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        variant = variants.get(score["task_id"])
        if variant is None:
            continue
        for metric, value in score["values"].items():
            if value is not None:
                for user in (score["user"], POOLED) if pooled else (score["user"],):
                    key = (score["arm"], user, variant.opening, metric)
                    values[key][variant.task].append(value)
    return {
        key: [round(sum(v) / len(v), 3) for v in tasks.values()] for key, tasks in values.items()
    }


def _cell(cell: Cell, dots: Mapping[Any, list[float]]) -> dict[str, Any]:
    names = ("arm", "user", "opening", "metric", "mean", "low", "high", "noise_floor")
    key = (cell.arm, cell.user, cell.opening, cell.metric)
    return {
        **{name: getattr(cell, name) for name in names},
        "n": format_number_of_tasks(cell),
        "missing": cell.num_missing,
        "tampered": cell.num_tampered,
        "values": dots.get(key, []),
    }


def _difference(found: Difference) -> dict[str, Any]:
    names = ("arm", "reference", "user", "opening", "metric", "mean", "low", "high", "primary")
    return {
        **{name: getattr(found, name) for name in names},
        "p": "" if found.p_corrected is None else format_p(found.p_corrected),
        "n": format_number_of_tasks(found),
        "record": f"{found.wins}/{found.ties}/{found.losses}",
        "verdict": _VERDICTS[found.verdict],
    }


def _asking(results: Results) -> list[dict[str, Any]]:
    """Lay out the asking curve: one panel per user, one line per arm."""
    if len({point.share_told for point in results.asking}) < 2:
        return []
    panels = []
    for user in results.users:
        points = defaultdict(list)
        for point in results.asking:
            if point.user == user.name:
                points[point.arm].append(
                    {
                        "told": point.share_told,
                        "label": f"{point.share_told:.0%}",
                        **{name: getattr(point, name) for name in ("mean", "low", "high")},
                    }
                )
        arms = [{"arm": arm.name, "points": points[arm.name]} for arm in results.arms]
        panels.append({"label": f"User {user.name}", "arms": [a for a in arms if a["points"]]})
    return [panel for panel in panels if panel["arms"]]
