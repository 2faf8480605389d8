"""An evaluation's tables, in Markdown and at the terminal."""

from collections.abc import Iterator, Sequence

from collabllm.evaluation.report.formats import (
    OPENING_LABELS,
    count_digits,
    format_interval,
    format_number,
    format_number_of_tasks,
    format_p,
)
from collabllm.evaluation.report.overview import describe_answer
from collabllm.evaluation.results import Cell, Difference, Opening, Results


def to_markdown(results: Results) -> str:
    """Write all tables: the answer, the primary outcomes, then every metric by user and opening."""
    parts = [to_summary(results), "## Every metric\n"]
    for user in results.user_names:
        for opening in results.openings:
            parts += _group(results, user, opening)
    return "\n".join(parts).rstrip() + "\n"


def to_summary(results: Results) -> str:
    """Write the answer, the notes, the primary outcomes and how often first replies ask."""
    parts = [f"{describe_answer(results)}\n", *(f"- {note}" for note in results.notes)]
    parts += ["", *_primary(results), *_asking(results)]
    return "\n".join(parts).rstrip() + "\n"


def _primary(results: Results) -> Iterator[str]:
    for outcome in results.primary:
        found = [
            d
            for d in results.primary_differences()
            if (d.metric, d.opening) == (outcome.metric, outcome.opening)
        ]
        if found:
            yield f"**{outcome.metric}**, {OPENING_LABELS[outcome.opening]}:\n"
            header = ["arm", "mean", results.reference, "difference [95%]", "p", "n"]
            rows = [
                [
                    d.arm,
                    format_number(d.arm_mean, digits=count_digits(d.low, d.high)),
                    format_number(d.reference_mean, digits=count_digits(d.low, d.high)),
                    *_difference_cells(d)[:4],
                ]
                for d in found
            ]
            yield _table([*header, "won/tied/lost"], rows)
            yield ""


def _difference_cells(d: Difference) -> list[str]:
    return [
        format_interval(d, signed=True),
        format_p(d.p_corrected),
        format_number_of_tasks(d),
        f"{d.wins}/{d.ties}/{d.losses}",
        format_number(d.smallest_detectable, digits=count_digits(d.low, d.high)),
        d.verdict if d.p_corrected is not None else "",
    ]


def _group(results: Results, user: str, opening: Opening) -> Iterator[str]:
    arms = [arm.name for arm in results.arms]
    cells = {
        (cell.arm, cell.metric): cell
        for cell in results.cells
        if (cell.user, cell.opening) == (user, opening) and cell.mean is not None
    }
    metrics = [m.name for m in results.metrics if any((arm, m.name) in cells for arm in arms)]
    if not metrics:
        return
    yield f"### User {user}, {OPENING_LABELS[opening]}\n"
    rows = []
    for arm in arms:
        shown = [cells.get((arm, metric)) for metric in metrics]
        rows.append([arm, *(_mean_cell(c) if c else "" for c in shown)])
    yield _table(["arm", *metrics], rows)
    differences = [
        d
        for d in results.differences
        if (d.user, d.opening, d.reference) == (user, opening, results.reference)
    ]
    if differences:
        yield f"\nAgainst {results.reference}, paired by task:\n"
        rows = [[d.arm, d.metric, *_difference_cells(d)] for d in differences]
        header = ["arm", "metric", "difference [95%]", "p corrected", "n", "won/tied/lost"]
        yield _table([*header, "could show", "verdict"], rows)
    yield ""


def _mean_cell(cell: Cell) -> str:
    tampered = f", {cell.num_tampered} tampered" if cell.num_tampered else ""
    return f"{format_interval(cell)}, n {format_number_of_tasks(cell)}{tampered}"


def _asking(results: Results) -> Iterator[str]:
    shares = sorted({point.share_told for point in results.asking})
    if len(shares) < 2:
        return
    points = {(p.arm, p.user, p.share_told): p for p in results.asking}
    rows = []
    for user in results.users:
        for arm in results.arms:
            found = [points.get((arm.name, user.name, share)) for share in shares]
            rows.append([arm.name, user.name, *(format_interval(p) if p else "" for p in found)])
    yield "Share of first replies that ask, by the share of the facts that the opening tells:\n"
    yield _table(["arm", "user", *(f"{share:.0%} told" for share in shares)], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(_escape, header))} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(_escape, row))} |" for row in rows)])


def _escape(text: str) -> str:
    """Keep a name within its cell."""
    return text.replace("|", "\\|")
