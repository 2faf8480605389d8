"""Rows of other people's datasets, turned into the columns of a task."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset, load_from_disk

from collabllm.data_processing.loading import iter_json

_MATH = ("problem", "solution")
_BIGCODEBENCH = ("instruct_prompt", "canonical_solution", "test", "entry_point")
_MEDIUM = ("title", "text")
_HARDEST = "Level 5"

Row = Mapping[str, Any]


def iter_rows(path: str | Path, split: str = "train") -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, a saved folder or a Hub dataset, one at a time, and where each is.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is not JSON.
    """
    file = Path(path)
    if file.suffix in (".jsonl", ".json", ".parquet") and not file.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if file.suffix in (".jsonl", ".json"):
        yield from iter_json(file)
        return
    if file.suffix == ".parquet":
        rows = load_dataset("parquet", data_files=str(file), split="train", streaming=True)
    elif file.is_dir():
        saved = load_from_disk(str(file))
        rows = saved if isinstance(saved, Dataset) else saved[split]
    else:
        rows = load_dataset(str(path), split=split, streaming=True)
    for idx, row in enumerate(rows, start=1):
        yield f"row {idx}", row


def recognise(row: Row, columns: Mapping[str, str] | None, where: str) -> Row | None:
    """Give a row a task's columns, by a column map or by the shape of a known source.

    Args:
        row: As it is in the dataset.
        columns: Our column name to theirs.
        where: For errors.

    Returns:
        A row with `single_turn_prompt`, or None for one to leave out (MATH below level 5).

    Raises:
        ValueError: If a mapped column is not there.
    """
    if not isinstance(row, Mapping):
        return row
    if columns:
        missing = [theirs for theirs in columns.values() if theirs not in row]
        if missing:
            raise ValueError(
                f"{where}: has no column {', '.join(missing)}; it has {', '.join(row)}."
            )
        return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}}
    if "single_turn_prompt" in row:
        return row
    if all(name in row for name in _BIGCODEBENCH):
        return _from_bigcodebench(row)
    if all(name in row for name in _MATH):
        return _from_math(row) if row.get("level", _HARDEST) == _HARDEST else None
    if all(name in row for name in _MEDIUM):
        return _from_medium(row)
    return row


def _from_math(row: Row) -> Row:
    """MATH (Hendrycks et al. 2021), for example `lighteval/MATH-Hard`; accuracy is its metric."""
    return {
        "single_turn_prompt": row["problem"],
        "single_turn_completion": row["solution"],
        "task_desc": "getting a mathematical problem solved",
        "single_turn_metadata": {"type": row.get("type", ""), "level": row.get("level", _HARDEST)},
    }


def _from_bigcodebench(row: Row) -> Row:
    """BigCodeBench (Zhuo et al. 2024), `bigcode/bigcodebench`; pass_rate is its metric."""
    return {
        "task_id": row.get("task_id"),
        "single_turn_prompt": row["instruct_prompt"],
        "single_turn_completion": row["canonical_solution"],
        "task_desc": "getting a Python function written",
        "single_turn_metadata": {"test": row["test"], "entry_point": row["entry_point"]},
    }


def _from_medium(row: Row) -> Row:
    """Articles of Medium, `fabiochiu/medium-articles`; document->bleu is their metric."""
    return {
        "single_turn_prompt": f'An article with the title "{row["title"]}" that says what this '
        f"one says:\n\n{row['text']}",
        "single_turn_completion": row["text"],
        "task_desc": "getting an article written",
        "single_turn_metadata": {"title": row["title"]},
    }
