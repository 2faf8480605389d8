"""An evaluation's results as the page shows them: the answer, its table, and what they are of."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collabllm.evaluation.analysis import analyse_folder, read_scores
from collabllm.evaluation.names import transcript_file
from collabllm.evaluation.plan import Variant, read_plan
from collabllm.evaluation.report.answer import Comparison, to_sentence
from collabllm.evaluation.report.answer import Outcome as Asked
from collabllm.evaluation.report.chart_data import chart_data
from collabllm.evaluation.report.conversations import Conversation, from_transcript, plural
from collabllm.evaluation.report.formats import (
    OPENING_LABELS,
    WHERE,
    arrow,
    count_digits,
    format_interval,
    format_number,
    format_number_of_tasks,
    format_p,
    plain,
)
from collabllm.evaluation.report.page import render
from collabllm.evaluation.results import (
    PEOPLE_UNIT,
    RESULTS_FILE,
    ArmInfo,
    Cell,
    Difference,
    Outcome,
    Results,
    read_results,
)
from collabllm.servers.prices import name_unpriced
from collabllm.simulation.transcripts import read_transcripts

REPORT_FILE = "report.html"
_SOURCE = "report"  # the report of any run of an evaluation gives way to the next one
_VERDICTS = {"better": "better", "worse": "worse", "differs": "other", "cannot tell": "unclear"}


def write_report(
    folder: Path,
    results: Results | None = None,
    path: Path | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the report of an evaluation, or write it again, from the files in its folder.

    Args:
        folder: Folder of the evaluation.
        results: Its results; by default those in the folder, or computed from its scores.
        path: Path of the HTML file; report.html in the folder by default.
        overwrite: Replace a file that is no report.

    Raises:
        FileExistsError: If another file is there.
        FileNotFoundError: If the folder has no evaluation.
    """
    if results is None:  # of a run that was killed there are none yet
        exists = (folder / RESULTS_FILE).is_file()
        results = read_results(folder) if exists else analyse_folder(folder)
    variants = {variant.task_id: variant for variant in read_plan(folder).variants}
    scores = {_key(score, score): score for score in read_scores(folder)}
    return render(
        path or folder / REPORT_FILE,
        title=f"Evaluation: {', '.join(arm.name for arm in results.arms)}",
        conversations=_conversations(folder, results, variants, scores),
        metrics=[metric.name for metric in results.metrics],
        source=_SOURCE,
        evaluation=describe(results, variants, scores),
        overwrite=overwrite,
    )


def _conversations(
    folder: Path, results: Results, variants: dict[str, Variant], scores: dict[Any, Any]
) -> Iterator[Conversation]:
    for arm in results.arms:
        for seed in arm.training_seeds or [""]:
            for user in results.users:
                file = transcript_file(folder, arm.name, user.name, seed)
                for line in read_transcripts(file) if file.is_file() else ():
                    names = {"arm": arm.name, "training_seed": seed, "user": user.name}
                    told = _told(variants.get(line["task_id"]))
                    score = scores.get(_key(names, line))
                    yield from_transcript(line, arm.name, score, told, seed)


def _key(names: Mapping[str, Any], line: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return which conversation a line of scores, or of an arm's and user's transcripts, is."""
    of = (names["arm"], names.get("training_seed", ""), names["user"])
    return (*of, line["task_id"], line["rollout_idx"])


def _told(variant: Variant | None) -> str:
    """Say what the opening of a conversation told."""
    if variant is None or variant.opening != "some":
        return OPENING_LABELS[variant.opening] if variant else ""
    return f"{variant.num_told} of {plural(variant.num_facts, 'fact')} told"


def describe(
    results: Results, variants: dict[str, Variant], scores: dict[Any, Any]
) -> dict[str, Any]:
    """Prepare what the template shows of the results."""
    first = 0 if results.complete else 1  # that an evaluation is incomplete stands above its table
    return {
        "sentence": describe_answer(results),
        "cautions": results.notes[:first],
        "notes": results.notes[first:],
        "date": results.date,
        "reference": results.reference,
        "outcomes": [_outcome(results, outcome) for outcome in results.primary],
        "about": _about(results),
        "method": _method(results),
        "rankings": [
            {"label": _label(Outcome(r.metric, r.opening)), "by_user": r.by_user}
            for r in results.rankings
            if len(results.users) > 1
        ],
        "endings": sorted({reason for e in results.endings for reason in e.counts}),
        "terminations": _count_endings(results),
        "faults": sorted({name for rates in results.audit.values() for name in rates}),
        "audit": results.audit,
        "usage": results.usage,
        "num_unanswered": results.num_unanswered,
        "cost_usd": results.cost_usd,
        "unpriced": name_unpriced(results.without_price),
        "settings": {
            **results.settings,
            **{f"prompt {name}": value for name, value in results.prompt_hashes.items()},
            **{f"metric {name}": value for name, value in results.signatures.items()},
        },
        "data": chart_data(results, variants, scores.values()),
    }


def _count_endings(results: Results) -> list[dict[str, Any]]:
    """Count how the conversations of each arm with each user ended, whatever their opening."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for found in results.endings:
        counts.setdefault((found.user, found.arm), Counter()).update(found.counts)
    return [{"arm": arm, "user": user, "counts": n} for (user, arm), n in counts.items()]


def describe_answer(results: Results) -> str:
    """Write the answer in one sentence."""
    asked = [_ask(results, outcome) for outcome in results.primary]
    units = "answers" if results.cluster_by == PEOPLE_UNIT else "tasks"
    return to_sentence(asked, results.reference, _sample(results, of_primary=True), units)


def _ask(results: Results, outcome: Outcome) -> Asked:
    differences = [
        d
        for d in results.primary_differences()
        if (d.metric, d.opening) == (outcome.metric, outcome.opening)
    ]
    where = "" if outcome == Outcome("facts_elicited", "none") else WHERE[outcome.opening]
    comparisons = [Comparison(d.arm, d.mean, d.low, d.high, d.p_corrected) for d in differences]
    return Asked(outcome.metric, where, comparisons)


def _sample(results: Results, *, of_primary: bool = False) -> str:
    """Say what was looked at in a few words, or how much of it the primary outcomes have."""
    shown = results.primary_differences() if of_primary else []
    parts = [_among({d.num_tasks for d in shown}, results.num_tasks) + _count_units(results)]
    if results.num_clusters != results.num_tasks:
        groups = {d.num_clusters for d in shown}
        parts[0] += f" in {_among(groups, results.num_clusters)}"
        parts[0] += plural(results.num_clusters, "group")
    if len(results.users) > 1:
        parts.append(plural(len(results.users), "user"))
    trainings = max((len(arm.training_seeds) for arm in results.arms), default=0)
    if trainings > 1:
        parts.append(plural(trainings, "training"))
    if not results.complete:
        parts.append("incomplete")
    return ", ".join(parts)


def _among(numbers: set[int], total: int) -> str:
    """Write `20 of `, or `20 to 40 of `, where these are not simply the total."""
    if numbers <= {total}:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low:,} of " if low == high else f"{low:,} to {high:,} of "


def _count_units(results: Results) -> str:
    if results.cluster_by == PEOPLE_UNIT:
        return "1 person" if results.num_tasks == 1 else f"{results.num_tasks:,} people"
    return plural(results.num_tasks, "task")


def _label(outcome: Outcome) -> str:
    return f"{plain(outcome.metric)} {WHERE[outcome.opening]}".strip()


def _outcome(results: Results, outcome: Outcome) -> dict[str, Any]:
    """Lay out one primary outcome, a row an arm, the reference first."""
    metric = next(m for m in results.metrics if m.name == outcome.metric)
    user, rows = results.headline_user, []
    reference = results.cell(results.reference, user, outcome.opening, outcome.metric)
    arms = sorted(results.arms, key=lambda arm: arm.name != results.reference)
    for arm in arms:
        cell = results.cell(arm.name, user, outcome.opening, outcome.metric)
        found = results.difference(
            arm.name, results.reference, user, outcome.opening, outcome.metric
        )
        if cell is not None:
            row = _row(cell, found, is_reference=arm.name == results.reference)
            rows.append({**row, "shared": _on_shared(found, reference)})
    return {"label": _label(outcome), "arrow": arrow(metric, outcome.opening), "rows": rows}


def _row(cell: Cell, found: Difference | None, *, is_reference: bool) -> dict[str, Any]:
    row = {
        "arm": cell.arm,
        "mean": format_interval(cell),
        "worst": _worst(cell),
        "tampered": f"{cell.num_tampered} tampered" if cell.num_tampered else "",
        "n": format_number_of_tasks(found or cell),
        **dict.fromkeys(("difference", "p", "record", "verdict", "detectable"), ""),
    }
    if found is None:
        return {**row, "difference": "reference" if is_reference else "no task in common"}
    unclear = found.verdict == "cannot tell" and found.smallest_detectable is not None
    could_show = format_number(
        found.smallest_detectable, digits=count_digits(found.low, found.high)
    )
    return {
        **row,
        "difference": format_interval(found, signed=True),
        "p": format_p(found.p_corrected),
        "record": f"{found.wins} / {found.ties} / {found.losses}",
        "verdict": _VERDICTS[found.verdict],
        "detectable": f"could show {could_show}" if unclear else "",
    }


def _on_shared(found: Difference | None, reference: Cell | None) -> str:
    """Say what the reference has on the tasks of a difference, where it has others, too."""
    if found is None or reference is None or reference.mean is None:
        return ""
    digits = count_digits(found.low, found.high)
    there, whole = (
        format_number(mean, digits=digits) for mean in (found.reference_mean, reference.mean)
    )
    return f"{reference.arm} has {there} here" if there != whole else ""


def _worst(cell: Cell) -> str:
    """Say what the missing values could make of a mean."""
    if not cell.num_missing or cell.worst_low is None or cell.worst_high is None:
        return ""
    low, high = format_number(cell.worst_low), format_number(cell.worst_high)
    return f"{cell.num_missing} missing: {low} to {high}"


def _about(results: Results) -> dict[str, str]:
    """Say what the arms, users and tasks are, and what made the results."""
    kind = "" if results.cluster_by == PEOPLE_UNIT else f"{results.tasks_are} "
    tasks = f"{_sample(results)}: {kind}tasks of {results.tasks}"
    if results.num_clusters != results.num_tasks:
        tasks += f", grouped by {results.cluster_by}"
    if results.tasks_are == "test":
        tasks += f", opened {plural(len(results.test_set_uses), 'time')}"
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    about = {
        "Arms": "; ".join(map(_about_arm, results.arms)),
        "Users": "; ".join(f"{user.name}: {user.description}" for user in results.users),
        "Tasks": tasks,
        "Command": results.command,
        "Versions": versions,
        "Commit": results.commit,
    }
    return {name: text for name, text in about.items() if text}


def _about_arm(arm: ArmInfo) -> str:
    parts = [arm.model, *arm.lora_paths]
    if arm.system_prompt != "default":
        parts.append(f"system prompt {arm.system_prompt!r}"[:80])
    return f"{arm.name}: {', '.join(filter(None, parts))}"


def _method(results: Results) -> str:
    groups, unit = "", "person" if results.cluster_by == PEOPLE_UNIT else "task"
    declared = not any(note.startswith("The primary outcomes were") for note in results.notes)
    if results.num_clusters != results.num_tasks:
        groups = f" in {results.num_clusters} groups by {results.cluster_by}"
    return (
        f"Means over {_count_units(results)}{groups}, with 95% intervals, longer than they need be "
        f"where few events are seen; differences are paired by {unit}. p-values are corrected over "
        f"everything on this page; {'only ' if declared else ''}the outcomes above were declared "
        f"{'before the run' if declared else 'after it had begun'}, all others are exploratory. A "
        "difference has a colour when its corrected p-value is below 0.05 and its interval is "
        f"without 0. Each dot is a {unit}."
    )
