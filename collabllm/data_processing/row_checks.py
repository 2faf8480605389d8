"""Check rows of the multi-turn format, one at a time, with errors that name the place."""

import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from collabllm.data_processing.formats import Rows
from collabllm.messages import find_prompt_error, shorten

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

REQUIRED_COLUMNS = ("prompt", "completion", "conv_id", "score")
_NUM_EXAMPLES = 3


def describe_missing_columns(missing: Iterable[str], present: Iterable[str]) -> str:
    """Say which columns are missing, which there are, and what to do."""
    return (
        f"missing {', '.join(map(repr, missing))}; it has "
        f"{', '.join(map(repr, present)) or 'no columns'}. Rename your columns to the dataset "
        "format (docs/data.md), or bring OpenAI chat rows (messages), ShareGPT rows "
        "(conversations) or preference rows (prompt, chosen, rejected)."
    )


def check_rows(
    rows: Rows, name: str, skip_bad_rows: bool = False, report: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield the rows with `turn_id` set; a malformed row, or no row at all, is a ValueError.

    Args:
        rows: Places and rows.
        name: Name of the dataset, for errors.
        skip_bad_rows: Leave malformed rows out instead, and report their number.
        report: Whether to report it; False where rows are read again.
    """
    count = 0
    errors: list[str] = []
    for where, row in rows:
        error = find_row_error(row)
        if not error:
            count += 1
            yield {**row, "turn_id": len(row["prompt"])}
        elif skip_bad_rows:
            errors.append(f"{where}: {error}")
        else:
            raise ValueError(f"{name} {where}: {error} {_SKIP}")
    if report:
        report_skipped(name, errors)
    if not count:
        raise ValueError(f"{name}: has no{' good' if errors else ''} rows.")


def fill_turn_ids(dataset: "Dataset") -> "Dataset":
    """Return a checked table, with `turn_id` where it has none."""
    if "turn_id" in dataset.column_names and None not in dataset.unique("turn_id"):
        return dataset
    return dataset.map(lambda row: {"turn_id": len(row["prompt"])}, desc="Filling in turn_id")


_SKIP = "(--skip_bad_rows goes on without such rows.)"


def report_skipped(name: str, errors: Sequence[str]) -> None:
    """Say how many rows are left out, and why the first ones are."""
    if errors:
        examples = "; ".join(errors[:_NUM_EXAMPLES])
        logger.warning("%s: %d bad rows are skipped: %s", name, len(errors), examples)


def find_row_error(row: Any) -> str | None:
    """Say what is wrong with a row of the dataset format, or return None for a good one."""
    if not isinstance(row, Mapping):
        return f"must be an object with the columns of the dataset format, got {shorten(row)}."
    if row.get("prompt") is None and isinstance(row.get("error"), str):
        return str(row["error"])  # of `bad_row`
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
    if not abs(score) <= sys.float_info.max:  # math.isfinite fails for whole numbers beyond it
        is_whole = isinstance(score, int)
        kind = "too large" if is_whole else "NaN" if math.isnan(score) else "infinite"
        return f"'score' is {kind}; a failed score is no score: remove the row or score it again."
    if turn_id is not None and turn_id != len(row["prompt"]):
        return (
            f"'turn_id' is {shorten(turn_id)}, but its prompt has {len(row['prompt'])} messages; "
            "turn_id is len(prompt): correct it or leave the column out."
        )
    return None
