"""An evaluation's tables, in Markdown and at the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from collabllm.evaluation.measures import DESCRIPTIVE

Results = Mapping[str, Any]


def group_title(user: str, num_told: int | None) -> str:
    """Name a group of conversations for people."""
    if num_told is None:
        return f"user {user}"
    facts = "1 fact" if num_told == 1 else f"{num_told} facts"
    told = "vague openings" if num_told == 0 else f"openings that tell {facts}"
    return f"user {user}, {told}"


def groups_of(results: Results) -> list[tuple[str, int | None]]:
    """Return the groups in the order of the results."""
    found = ((s["user"], s["num_told"]) for s in results["summaries"])
    return list(dict.fromkeys(found))


def format_mean(summary: Mapping[str, Any]) -> str:
    """Write a mean with its interval, and how many values are missing."""
    if summary["mean"] is None:
        return "-"
    digits = 1 if abs(summary["mean"]) >= 10 else 2
    text = (
        f"{summary['mean']:.{digits}f} [{summary['low']:.{digits}f}, {summary['high']:.{digits}f}]"
    )
    return text + (f" ({summary['num_missing']} missing)" if summary["num_missing"] else "")


def format_difference(difference: Mapping[str, Any]) -> str:
    """Write a paired difference with its interval and p-values."""
    digits = 1 if abs(difference["mean"]) >= 10 else 2
    holm = "" if difference["p_holm"] is None else f" ({difference['p_holm']:.3f})"
    return (
        f"{difference['mean']:+.{digits}f} [{difference['low']:+.{digits}f}, "
        f"{difference['high']:+.{digits}f}], p {difference['p_value']:.3f}{holm}"
    )


def to_markdown(results: Results) -> str:
    """Write all tables; means and differences with 95% intervals, p-values in both forms."""
    parts = [part for group in groups_of(results) for part in _write_group(results, group)]
    return "\n".join([*parts, _over_asking(results)]).rstrip() + "\n"


def to_summary(results: Results) -> str:
    """Write the quality metrics of the first group and the share of replies that ask."""
    shown = [metric for metric in results["metrics"] if metric not in DESCRIPTIVE]
    first = _write_group({**results, "metrics": shown}, groups_of(results)[0])
    return "\n".join([*first, _over_asking(results)]).rstrip() + "\n"


def _write_group(results: Results, group: tuple[str, int | None]) -> list[str]:
    names = [arm["name"] for arm in results["arms"]]
    summaries = _by_arm_and_metric(results["summaries"], group)
    metrics = [
        metric
        for metric in results["metrics"]
        if any(summaries[arm, metric]["mean"] is not None for arm in names)
    ]
    title = group_title(*group)
    parts = [
        f"### {title[0].upper()}{title[1:]}\n",
        _table(
            ["arm", *metrics],
            [[a, *(format_mean(summaries[a, m]) for m in metrics)] for a in names],
        ),
    ]
    differences = _by_arm_and_metric(results["differences"], group)
    rows = [
        [
            arm,
            metric,
            format_difference(differences[arm, metric]),
            str(differences[arm, metric]["tasks_needed"] or "-"),
        ]
        for arm in names
        for metric in metrics
        if (arm, metric) in differences
    ]
    if rows:
        parts.append(
            f"\nDifference to {results['reference']}, paired by task: mean [95% interval], p (Holm "
            "over the quality metrics); tasks for 80% power.\n"
        )
        parts.append(_table(["arm", "metric", "difference", "tasks needed"], rows))
    return [*parts, ""]


def _over_asking(results: Results) -> str:
    found = [entry for entry in results["over_asking"] if len(entry["curve"]) > 1]
    if not found:
        return ""
    known = [point["num_told"] for point in found[0]["curve"]]
    rows = [
        [
            entry["arm"],
            entry["user"],
            *(format_mean({**point, "num_missing": 0}) for point in entry["curve"]),
        ]
        for entry in found
    ]
    header = [f"{n} told" for n in known]
    header[0], header[-1] = "vague opening: asking is needed", "complete opening: needless"
    title = "### Share of first replies that ask, by what the opening tells\n\n"
    return title + _table(["arm", "user", *header], rows)


def _by_arm_and_metric(
    entries: Sequence[Mapping[str, Any]], group: tuple[str, int | None]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (entry["arm"], entry["metric"]): entry
        for entry in entries
        if (entry["user"], entry["num_told"]) == group
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
