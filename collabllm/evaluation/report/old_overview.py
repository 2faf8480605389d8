"""An evaluation's results as the page shows them: the answer, its table, charts, endings, costs."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabllm.evaluation.measures import DESCRIPTIVE, FIRST_REPLY_ASKS
from collabllm.evaluation.names import transcript_file
from collabllm.evaluation.report.answer import Comparison, Outcome, to_sentence
from collabllm.evaluation.report.conversations import Conversation, from_transcript, plural
from collabllm.evaluation.report.page import render
from collabllm.files import read_json_lines
from collabllm.simulation.transcripts import read_transcripts

Results = Mapping[str, Any]
Entry = Mapping[str, Any]
Scores = Sequence[Entry]

REPORT_FILE = "report.html"
_SOURCE = "report"  # the report of any run of an evaluation gives way to the next one
_LOWER_IS_BETTER = ("over_asking", "repetition", "contradictions")
_ARROWS = {1: "↑ higher is better", -1: "↓ lower is better", 0: ""}


def render_report(folder: Path, path: Path | None = None, *, overwrite: bool = False) -> Path:
    """Make the report of a finished evaluation again, from the files in its folder.

    Args:
        folder: Of the evaluation.
        path: Of the HTML file; the folder's report by default.
        overwrite: Replace a file that is no report.

    Raises:
        FileNotFoundError: If the evaluation has no results yet.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; evaluate.py --resume finishes the run.")
    results = json.loads(file.read_text(encoding="utf-8"))
    scores = list(read_json_lines(folder / "scores.jsonl"))
    return write_report(path or folder / REPORT_FILE, folder, results, scores, overwrite=overwrite)


def write_report(
    path: Path, folder: Path, results: Results, scores: Scores, *, overwrite: bool = False
) -> Path:
    """Write the report of an evaluation.

    Args:
        path: Of the HTML file.
        folder: Of the evaluation; its transcripts are read.
        results: What results.json holds.
        scores: Lines of the scores file.
        overwrite: Replace a file that is no report.
    """
    return render(
        path,
        title=f"Evaluation: {', '.join(arm['name'] for arm in results['arms'])}",
        conversations=_conversations(folder, results, scores),
        metrics=results["metrics"],
        source=_SOURCE,
        evaluation=describe(results, scores),
        overwrite=overwrite,
    )


def _conversations(folder: Path, results: Results, scores: Scores) -> Iterator[Conversation]:
    by_key = {(s["arm"], s["user"], s["task_id"], s["rollout_idx"]): s for s in scores}
    for arm in results["arms"]:
        for user in results["users"]:
            file = transcript_file(folder, arm["name"], user["name"])
            for line in read_transcripts(file) if file.is_file() else ():
                key = (arm["name"], user["name"], line["task_id"], line["rollout_idx"])
                score = by_key.get(key)
                yield from_transcript(line, arm["name"], score, opening_of(score) if score else "")


def opening_of(entry: Entry) -> str:
    """Say what the openings told."""
    told = entry["num_told"]
    if told is None:
        return "any opening"
    return "vague opening" if told == 0 else f"{plural(told, 'fact')} told"


def describe(results: Results, scores: Scores) -> dict[str, Any]:
    """Prepare what the template shows of the results."""
    arms = [arm["name"] for arm in results["arms"]]
    sample = plural(len(results["tasks"]), "task")
    outcomes = [found for user in results["users"] for found in _primary(results, user["name"])]
    return {
        "sentence": to_sentence([o for o, _ in outcomes], results["reference"], sample),
        "cautions": [],
        "date": results.get("date", ""),
        "outcomes": [table for _, table in outcomes],
        "about": {
            "Arms": "; ".join(map(_about_arm, results["arms"])),
            "Users": ", ".join(user["name"] for user in results["users"]),
            "Tasks": sample,
            "Versions": ", ".join(" ".join(item) for item in results["versions"].items()),
        },
        "method": "Means over tasks with 95% intervals; differences are paired by task.",
        "endings": sorted({reason for t in results["terminations"] for reason in t["counts"]}),
        "terminations": [{**t, "opening": opening_of(t)} for t in results["terminations"]],
        "faults": [name for name in (results["audit"] or [{}])[0] if name != "user"],
        "audit": results["audit"],
        "usage": results["usage"],
        "cost_usd": results["cost_usd"],
        "settings": {
            **results["settings"],
            **{f"prompt {name}": value for name, value in results["prompt_hashes"].items()},
        },
        "data": _chart_data(results, scores, arms),
    }


def _about_arm(arm: Entry) -> str:
    of = arm.get("lora_path") or arm.get("model")
    return f"{arm['name']} ({of})" if of else str(arm["name"])


def _better(metric: str) -> int:
    """Return 1 where a higher value is better, -1 where a lower one is, 0 where neither."""
    if metric in (*DESCRIPTIVE, FIRST_REPLY_ASKS):
        return 0
    return -1 if metric in _LOWER_IS_BETTER else 1


def _primary(results: Results, user: str) -> Iterator[tuple[Outcome, dict[str, Any]]]:
    """Yield the primary outcomes of a user: the facts elicited, and needless asking."""
    told = [s["num_told"] for s in results["summaries"] if s["num_told"] is not None]
    wanted = [("facts_elicited", min(told, default=0), "", 1)]
    if told and max(told) > min(told):
        wanted.append((FIRST_REPLY_ASKS, max(told), "where most is told", -1))
    for metric, num_told, where, better in wanted:
        here = {"metric": metric, "num_told": num_told, "user": user}
        differences = {d["arm"]: d for d in _select(results["differences"], here)}
        summaries = {s["arm"]: s for s in _select(results["summaries"], here)}
        if not differences:
            continue
        with_user = f"with {user}" if len(results["users"]) > 1 else ""
        outcome = Outcome(
            metric,
            " ".join(filter(None, (where, with_user))),
            [
                Comparison(arm, d["mean"], d["low"], d["high"], d["p_holm"])
                for arm, d in differences.items()
            ],
        )
        shown = {c.arm: c for c in outcome.comparisons}
        label = " ".join(filter(None, (metric.replace("_", " "), outcome.where)))
        rows = [_primary_row(arm, s, shown.get(arm), better) for arm, s in summaries.items()]
        yield outcome, {"label": label, "arrow": _ARROWS[better], "rows": rows}


def _select(entries: Sequence[Entry], wanted: Entry) -> list[Entry]:
    return [e for e in entries if all(e[name] == value for name, value in wanted.items())]


def _primary_row(arm: str, summary: Entry, found: Comparison | None, better: int) -> dict[str, Any]:
    return {
        "arm": arm,
        "mean": format_interval(summary),
        "n": summary.get("num_tasks", 0),
        "difference": format_interval(vars(found), signed=True) if found else "reference",
        "p": format_p(found.p_value) if found else "",
        "record": "",
        "verdict": _verdict(found.sign * better, found.sign) if found else "",
    }


def _verdict(goodness: int, sign: int) -> str:
    """Return the class by which a difference is coloured."""
    if not sign:
        return "unclear"
    return {1: "better", -1: "worse", 0: "other"}[goodness]


def format_interval(entry: Entry, *, signed: bool = False) -> str:
    """Write a mean with its interval, where there is one."""
    if entry.get("mean") is None:
        return "\u2013"
    sign = "+" if signed else ""
    digits = 1 if abs(entry["mean"]) >= 10 else 2
    text = f"{entry['mean']:{sign}.{digits}f}"
    if entry.get("low") is not None and entry.get("high") is not None:
        text += f" [{entry['low']:{sign}.{digits}f}, {entry['high']:{sign}.{digits}f}]"
    return text.replace("-", "\u2212")


def format_p(value: float | None) -> str:
    """Write a p-value; it is never 0."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _chart_data(results: Results, scores: Scores, arms: Sequence[str]) -> dict[str, Any]:
    """Collect what the page's own code draws."""
    values: dict[Any, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        for metric, value in score["values"].items():
            if value is not None:
                key = (score["arm"], score["user"], score["num_told"], metric)
                values[key][score["task_id"]].append(value)
    differences = {_key(d): d for d in results["differences"]}
    openings = {s["num_told"]: opening_of(s) for s in results["summaries"]}
    ordered = sorted(openings.items(), key=lambda item: (item[0] is not None, item[0] or 0))
    return {
        "arms": list(arms),
        "reference": results["reference"],
        "users": [{"key": u["name"], "label": u["name"]} for u in results["users"]],
        "openings": [{"key": str(told), "label": label} for told, label in ordered],
        "metrics": [
            {"name": name, "label": name.replace("_", " "), "better": _better(name)}
            for name in results["metrics"]
        ],
        "cells": [
            _cell(s, differences.get(_key(s)), values.get(_key(s), {}))
            for s in results["summaries"]
        ],
        "asking": _asking(results),
    }


def _key(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("arm", "user", "num_told", "metric"))


def _cell(
    summary: Entry, difference: Entry | None, values: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    found = None
    if difference is not None:
        p_value = difference["p_holm"]
        numbers = {name: difference[name] for name in ("mean", "low", "high")}
        sign = Comparison(p_value=p_value, arm="", **numbers).sign
        found = {
            **numbers,
            "p": format_p(p_value),
            "verdict": _verdict(sign * _better(summary["metric"]), sign),
        }
    return {
        **{name: summary.get(name) for name in ("metric", "user", "arm", "mean", "low", "high")},
        "opening": str(summary["num_told"]),
        "n": summary.get("num_tasks", 0),
        "values": [round(sum(v) / len(v), 3) for v in values.values()],
        "difference": found,
    }


def _asking(results: Results) -> list[dict[str, Any]]:
    """Lay out the asking curve: a panel a user, a line an arm."""
    panels = []
    for user in results["users"]:
        entries = _select(results["over_asking"], {"user": user["name"]})
        entries = [entry for entry in entries if len(entry["curve"]) > 1]
        most = max((p["num_told"] for e in entries for p in e["curve"]), default=0)
        arms = [
            {
                "arm": entry["arm"],
                "points": [
                    {
                        "told": point["num_told"] / most,
                        "label": f"{point['num_told']} told",
                        **{name: point[name] for name in ("mean", "low", "high")},
                    }
                    for point in entry["curve"]
                ],
            }
            for entry in entries
        ]
        if arms:
            panels.append({"label": f"User {user['name']}", "arms": arms})
    return panels
