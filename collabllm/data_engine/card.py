"""The card of a built dataset: what it is, what made it, what it cost, what is missing."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from collabllm.data_processing.confidence import fit_posteriors
from collabllm.files import write_text

_LEVELS = (0.8, 0.9, 0.95)
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def write_card(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write README.md, as the Hub reads it, beside the data.

    Args:
        folder: Folder of the dataset.
        rows: All rows; only scores, ids and rewards are read.
        settings: Flags of the run.
        facts: `usage`, `cost`, `lost`, `failed`, `prompt_hashes`, `signatures`, `versions`.
    """
    header = {
        "tags": ["collabllm", "multi-turn", "preference"],
        "configs": [{"config_name": "default", "data_files": "train.jsonl"}],
    }
    scores = [row["score"] for row in rows]
    turns = {(row["conv_id"], row["turn_id"]) for row in rows}
    text = f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# Multi-turn conversations with scored replies

{len({row["conv_id"] for row in rows}):,} conversations, {len(turns):,} turns, {len(rows):,}
candidate replies. One row is one candidate; `score` is its multiturn-aware reward, the mean over
the sampled futures in `sessions`; `rewards` has each metric, one number a future. The
conversation went on with the row that is `chosen`. Built with CollabLLM; train on it with
`scripts/train_sft.py --hf_dataset_path` or `scripts/train_dpo.py`.

## Scores
{_quantiles(scores)}

{_metrics(rows)}

{_confidence(rows)}

## Lost candidates and conversations
{_bullets(facts["lost"]) or "No candidate was lost."}

{_bullets(facts["failed"]) or "No conversation failed."}

## Cost
{_bullets(facts["usage"])}
- total: {facts["cost"]}

## Settings
{_bullets(settings)}

## Prompts and versions
{_bullets({**facts["prompt_hashes"], **facts["signatures"], **facts["versions"]})}
"""
    write_text(folder / "README.md", text)


def _quantiles(scores: Sequence[float]) -> str:
    if not scores:
        return "No scores."
    names = " | ".join(f"{q:.0%}" for q in _QUANTILES)
    values = " | ".join(f"{np.quantile(scores, q):.3f}" for q in _QUANTILES)
    return f"| quantile | {names} |\n|---|{'---|' * len(_QUANTILES)}\n| score | {values} |"


def _confidence(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how much of the differences within turns is noise of the futures."""
    turns: dict[tuple[Any, Any], list[list[float | None]]] = defaultdict(list)
    for row in rows:
        turns[row["conv_id"], row["turn_id"]].append(row["rewards"]["total"])
    posteriors = fit_posteriors(list(turns.values()))
    if not posteriors:
        return "No turn has two scored candidates."
    sure = [q.p_above(*q.best_and_worst()) for q in posteriors]
    shares = ", ".join(f"{np.mean([p >= c for p in sure]):.0%} at {c}" for c in _LEVELS)
    kept = np.mean([q.shrinkage for q in posteriors])
    return (
        "Turns whose best candidate is surely better than their worst (`--min_confidence` of "
        f"`train_dpo.py`): {shares}. Of a difference between two scores, {kept:.0%} is expected to "
        "be real; the rest is noise of the futures."
    )


def _metrics(rows: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for row in rows for name in row["rewards"])
    lines = ["| metric | mean over futures | futures | without a value |", "|---|---|---|---|"]
    for name in names:
        values = [value for row in rows for value in row["rewards"].get(name, ())]
        known = [value for value in values if value is not None]
        mean = f"{np.mean(known):.3f}" if known else "none"
        lines.append(f"| {name} | {mean} | {len(values):,} | {len(values) - len(known):,} |")
    return "\n".join(lines)


def _bullets(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: `{value}`" for name, value in values.items())
