"""How the report and the tables write numbers and openings."""

import math
from collections.abc import Mapping

from collabllm.evaluation.results import AskingPoint, Cell, Difference, MetricInfo, Opening
from collabllm.evaluation.statistics import MIN_UNITS

OPENING_LABELS: Mapping[Opening, str] = {
    "none": "nothing told",
    "some": "some facts told",
    "all": "everything told",
    "unasked": "plain request",
}
WHERE: Mapping[Opening, str] = {
    "none": "where nothing is told",
    "some": "where some facts are told",
    "all": "where nothing is missing",
    "unasked": "",
}
_MINUS, _DASH = "\u2212", "\u2013"


def count_digits(low: float | None, high: float | None) -> int:
    """Return how many decimals tell an interval's width: two, or more where it is below 0.01."""
    width = 0.0 if low is None or high is None else abs(high - low)
    if not 1e-9 < width < 0.01:
        return 2
    return math.ceil(-math.log10(width))


def format_number(value: float | None, *, signed: bool = False, digits: int = 2) -> str:
    """Write a number with some decimals, where they are two one from 10 on; a dash for none."""
    if value is None:
        return _DASH
    if digits == 2 and abs(value) >= 10:
        digits = 1
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", _MINUS)


def format_interval(found: Cell | Difference | AskingPoint, *, signed: bool = False) -> str:
    """Write a mean with its 95% interval, or with the values of tasks too few for one."""
    digits = count_digits(found.low, found.high)
    text = format_number(found.mean, signed=signed, digits=digits)
    if found.low is None or found.high is None:
        values = [] if isinstance(found, AskingPoint) else found.values
        shown = ", ".join(format_number(value, signed=signed) for value in values)
        return f"{text} ({shown})" if 1 < len(values) < MIN_UNITS else text
    low, high = (format_number(v, signed=signed, digits=digits) for v in (found.low, found.high))
    return f"{text} [{low}, {high}]"


def format_p(value: float | None) -> str:
    """Write a p-value, which is never 0; a dash where no test was made."""
    if value is None:
        return _DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def format_number_of_tasks(found: Cell | Difference) -> str:
    """Write the tasks with values, and how many were planned where some are missing."""
    missing = found.num_tasks < found.num_planned
    return f"{found.num_tasks} of {found.num_planned}" if missing else str(found.num_tasks)


def plain(name: str) -> str:
    """Write a metric's name in words."""
    return name.replace("_", " ")


def arrow(metric: MetricInfo, opening: Opening) -> str:
    """Say which direction is better."""
    better = metric.better.get(opening, 0)
    return {1: "\u2191 higher is better", -1: "\u2193 lower is better"}.get(better, "")
