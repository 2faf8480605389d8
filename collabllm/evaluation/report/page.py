"""One self-contained HTML file: tables, charts and conversations of an evaluation or a dataset."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from collabllm import __version__
from collabllm.evaluation.report.charts import curve_chart, forest_plot, histograms
from collabllm.evaluation.report.conversations import Conversation, from_transcript
from collabllm.evaluation.report.tables import (
    format_difference,
    format_mean,
    group_title,
    groups_of,
)
from collabllm.simulation.transcripts import read_transcripts

_TEMPLATE = "report.html.j2"
_LENGTH = "num_tokens"


def write_report(
    path: Path, folder: Path, results: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]
) -> Path:
    """Write the report of an evaluation.

    Args:
        path: Of the HTML file.
        folder: Of the evaluation; its transcripts are read.
        results: What results.json holds.
        scores: Lines of the scores file.
    """
    by_key = {(s["arm"], s["user"], s["task_id"], s["rollout_idx"]): s for s in scores}
    conversations = []
    for arm in results["arms"]:
        for user in results["users"]:
            file = folder / "transcripts" / f"{arm['name']}--{user['name']}.jsonl"
            for line in read_transcripts(file):
                key = (arm["name"], user["name"], line["task_id"], line["rollout_idx"])
                conversations.append(from_transcript(line, arm["name"], by_key.get(key)))
    return render(
        path,
        title=f"Evaluation: {', '.join(arm['name'] for arm in results['arms'])}",
        conversations=conversations,
        evaluation=_describe(results, scores),
    )


def render(
    path: Path,
    *,
    title: str,
    conversations: Sequence[Conversation],
    evaluation: Mapping[str, Any] | None = None,
) -> Path:
    """Render the page; every text of a conversation reaches it as data, never as markup.

    Args:
        path: Of the HTML file.
        title: Of the page.
        conversations: From `conversations.from_transcript` or `from_dataset`.
        evaluation: Tables and charts, or None for conversations alone.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("collabllm.evaluation.report"),
        autoescape=True,
        trim_blocks=True,
    )
    data = json.dumps(list(conversations), ensure_ascii=False)
    page = environment.get_template(_TEMPLATE).render(
        title=title,
        evaluation=evaluation,
        data=data.replace("<", "\\u003c"),  # no text can end the script element
        num_conversations=len(conversations),
        version=__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(page, encoding="utf-8")
    scratch.replace(path)
    return path


def _describe(results: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Prepare what the template shows of the results."""
    arms = [arm["name"] for arm in results["arms"]]
    endings = sorted({reason for t in results["terminations"] for reason in t["counts"]})
    return {
        "arms": arms,
        "reference": results["reference"],
        "groups": [_describe_group(results, scores, group, arms) for group in groups_of(results)],
        "curve": curve_chart([e for e in results["over_asking"] if len(e["curve"]) > 1]),
        "endings": endings,
        "terminations": [
            {**t, "title": group_title(t["user"], t["num_told"])} for t in results["terminations"]
        ],
        "audit": results["audit"],
        "usage": results["usage"],
        "cost_usd": results["cost_usd"],
        "settings": {
            **results["settings"],
            **{f"version of {name}": number for name, number in results["versions"].items()},
            **{f"prompt {name}": number for name, number in results["prompt_hashes"].items()},
        },
        "num_tasks": len(results["tasks"]),
    }


def _describe_group(
    results: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    group: tuple[str, int | None],
    arms: Sequence[str],
) -> dict[str, Any]:
    def of_group(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [e for e in entries if (e["user"], e["num_told"]) == group]

    summaries = {(s["arm"], s["metric"]): s for s in of_group(results["summaries"])}
    differences = of_group(results["differences"])
    found = of_group(scores)
    metrics = [
        metric
        for metric in results["metrics"]
        if any(summaries[arm, metric]["mean"] is not None for arm in arms)
    ]
    return {
        "title": group_title(*group),
        "metrics": metrics,
        "rows": [[arm, *(format_mean(summaries[arm, m]) for m in metrics)] for arm in arms],
        "differences": [
            {**d, "text": format_difference(d), "needed": d["tasks_needed"] or "-"}
            for d in differences
        ],
        "forests": [
            {"metric": metric, **forest_plot([d for d in differences if d["metric"] == metric])}
            for metric in metrics
            if any(d["metric"] == metric for d in differences)
        ],
        "noise": [
            {"arm": arm, "metric": metric, "value": f"{summaries[arm, metric]['noise_floor']:.3f}"}
            for arm in arms
            for metric in metrics
            if summaries[arm, metric]["noise_floor"] is not None
        ],
        "histograms": [
            {"metric": metric, **_histogram(found, metric, arms)}
            for metric in metrics
            if metric != "seconds"
        ],
    }


def _histogram(
    scores: Sequence[Mapping[str, Any]], metric: str, arms: Sequence[str]
) -> dict[str, Any]:
    return histograms(
        {
            arm: [
                s["values"][metric]
                for s in scores
                if s["arm"] == arm and s["values"].get(metric) is not None
            ]
            for arm in arms
        }
    )
