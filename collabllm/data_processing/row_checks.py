"""Check rows of the multi-turn format, one at a time, with errors that name the place."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from collabllm.messages import find_prompt_error, shorten

REQUIRED_COLUMNS = ("prompt", "completion", "conv_id", "score")
Rows = Iterator[tuple[str, dict[str, Any]]]
"""Pairs of a row's place (`row 17`) and the row."""


def describe_missing_columns(missing: Iterable[str], present: Iterable[str]) -> str:
    """Say which columns are missing, which there are, and what to do."""
    return (
        f"missing {', '.join(map(repr, missing))}; it has "
        f"{', '.join(map(repr, present)) or 'no columns'}. Rename your columns to the dataset "
        "format (README, 'The dataset format')."
    )


def check_rows(rows: Rows, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows with `turn_id` set; a malformed row, or no row at all, is a ValueError."""
    count = 0
    for where, row in rows:
        count += 1
        error = _find_row_error(row)
        if error:
            raise ValueError(f"{name} {where}: {error}")
        yield {**row, "turn_id": len(row["prompt"])}
    if not count:
        raise ValueError(f"{name}: has no rows.")


def _find_row_error(row: Any) -> str | None:
    if not isinstance(row, Mapping):
        return f"must be an object with the columns of the dataset format, got {shorten(row)}."
    missing = [column for column in REQUIRED_COLUMNS if row.get(column) is None]
    if missing:
        return describe_missing_columns(missing, (key for key in row if row[key] is not None))
    prompt_error = find_prompt_error(row["prompt"])
    if prompt_error:
        return f"'prompt' {prompt_error}."
    completion, score, turn_id = row["completion"], row["score"], row.get("turn_id")
    if not isinstance(completion, str) or not completion.strip():
        return f"'completion' must be a non-empty text, got {shorten(completion)}; remove the row."
    if not isinstance(row["conv_id"], (int, str)) or isinstance(row["conv_id"], bool):
        return f"'conv_id' must be a whole number or a text, got {shorten(row['conv_id'])}."
    if not isinstance(score, (int, float)) or isinstance(score, bool):
        return f"'score' must be a number, got {shorten(score)}; convert it or remove the row."
    if not math.isfinite(score):
        kind = "NaN" if math.isnan(score) else "infinite"
        return f"'score' is {kind}; a failed score is no score: remove the row or score it again."
    if turn_id is not None and turn_id != len(row["prompt"]):
        return (
            f"'turn_id' is {shorten(turn_id)}, but its prompt has {len(row['prompt'])} messages; "
            "turn_id is len(prompt): correct it or leave the column out."
        )
    return None
