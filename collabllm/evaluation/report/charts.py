"""Positions and sizes of the report's charts; the templates draw them as SVG."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collabllm.evaluation.report.tables import format_difference

_WIDTH = 640.0
_LEFT = 200.0
_ROW = 26.0
_NUM_BINS = 12
_DODGE = 5.0  # between the arms' points, which would hide one another


def forest_plot(differences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay out paired differences of one metric, one row an arm, around a line at 0.

    Args:
        differences: With `arm`, `mean`, `low`, `high` and p-values.

    Returns:
        Sizes, rows and ticks in SVG units.
    """
    reach = max(abs(d[key]) for d in differences for key in ("low", "high")) * 1.1 or 1.0
    scale = (_WIDTH - _LEFT - 20) / (2 * reach)
    center = _LEFT + reach * scale
    rows = [
        {
            "label": d["arm"],
            "y": _ROW * (idx + 0.5),
            "x": center + d["mean"] * scale,
            "low": center + d["low"] * scale,
            "high": center + d["high"] * scale,
            "text": format_difference(d),
            "kind": "clear" if d["low"] > 0 or d["high"] < 0 else "unclear",
        }
        for idx, d in enumerate(differences)
    ]
    step = _nice_step(reach)
    count = int(reach / step)
    ticks = [
        {"x": center + i * step * scale, "text": f"{i * step:g}"} for i in range(-count, count + 1)
    ]
    height = _ROW * len(rows)
    return {
        "width": _WIDTH,
        "height": height + 24,
        "plot_height": height,
        "center": center,
        "rows": rows,
        "ticks": ticks,
    }


def histograms(columns: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Lay out one histogram a name, all with the same bins and heights.

    Args:
        columns: Values by name.

    Returns:
        Panels with bars in SVG units, and the range of the bins.
    """
    known = [value for values in columns.values() for value in values]
    if not known:
        return {"panels": []}
    low, high = min(known), max(known)
    edges = np.linspace(low, high if high > low else low + 1, _NUM_BINS + 1)
    counts = {name: np.histogram(values, edges)[0] for name, values in columns.items()}
    highest = max(int(c.max()) for c in counts.values())
    width, height = 200.0, 70.0
    bar = width / _NUM_BINS
    panels = [
        {
            "name": name,
            "number": len(columns[name]),
            "bars": [
                {
                    "x": i * bar,
                    "y": height - height * n / max(highest, 1),
                    "height": height * n / max(highest, 1),
                    "width": bar - 1,
                    "text": f"{edges[i]:.3g} to {edges[i + 1]:.3g}: {n}",
                }
                for i, n in enumerate(int(n) for n in found)
            ],
        }
        for name, found in counts.items()
    ]
    return {
        "panels": panels,
        "width": width,
        "height": height,
        "low": f"{edges[0]:.3g}",
        "high": f"{edges[-1]:.3g}",
    }


def curve_chart(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay out how often the first reply asks, by the facts that the opening tells.

    Args:
        entries: Of `over_asking`: `arm`, `user` and a `curve` of points.
    """
    width, height, left, bottom = 420.0, 180.0, 40.0, 24.0
    most = max((p["num_told"] for e in entries for p in e["curve"]), default=0)
    if not most:
        return {"lines": []}

    def place(point: Mapping[str, Any], key: str, idx: int) -> tuple[float, float]:
        x = left + (width - left - 30) * point["num_told"] / most + _DODGE * idx
        return x, 8 + (height - bottom - 8) * (1 - min(max(point[key], 0.0), 1.0))

    lines = [
        {
            "name": f"{entry['arm']} ({entry['user']})",
            "points": [
                {
                    "x": place(p, "mean", idx)[0],
                    "y": place(p, "mean", idx)[1],
                    "low": place(p, "low", idx)[1],
                    "high": place(p, "high", idx)[1],
                    "text": f"{entry['arm']}, {p['num_told']} facts told: {p['mean']:.2f} "
                    f"[{p['low']:.2f}, {p['high']:.2f}]",
                }
                for p in entry["curve"]
            ],
            "path": " ".join(
                "{:.1f},{:.1f}".format(*place(p, "mean", idx)) for p in entry["curve"]
            ),
        }
        for idx, entry in enumerate(entries)
    ]
    x_ticks = [
        {"x": left + (width - left - 30) * i / most, "text": str(i)} for i in range(most + 1)
    ]
    y_ticks = [{"y": 8 + (height - bottom - 8) * (1 - v), "text": f"{v:g}"} for v in (0, 0.5, 1)]
    return {
        "width": width,
        "height": height,
        "left": left,
        "floor": height - bottom,
        "lines": lines,
        "x_ticks": x_ticks,
        "y_ticks": y_ticks,
    }


def _nice_step(reach: float) -> float:
    """Return a round number with two or three ticks on each side."""
    power = 10.0 ** math.floor(math.log10(reach))
    return next((power * m for m in (0.2, 0.5, 1, 2) if reach / (power * m) <= 3), power * 5)
