"""Split by task: a hash of the task decides its side, so no filter or order moves a task."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

_SALT = "collabllm-split-v1"


def get_column(row: Mapping[str, Any], column: str) -> Any:
    """Read a column; a dotted name reaches into dicts (`single_turn_metadata.domain`).

    Returns:
        The value, or None where the row or one of its dicts has no such key.
    """
    value: Any = row.get(column) if column in row else None
    if value is None and "." in column:
        value = row
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def task_key(row: Mapping[str, Any], split_by: str = "single_turn_prompt") -> str:
    """Return what a row is split by: the column `split_by`, or else its `conv_id`."""
    value = get_column(row, split_by)
    return f"conv_id:{row['conv_id']}" if value is None else f"{split_by}:{value}"


def check_split_column(
    rows: Iterable[Mapping[str, Any]], split_by: str, flag: str = "--split_by"
) -> None:
    """Refuse a column that no row has: each row would silently be split by its `conv_id`.

    Args:
        rows: Rows of the dataset; reading stops at the first one that has the column.
        split_by: As in `task_key`; `single_turn_prompt` may be missing, then `conv_id` counts.
        flag: What named it.

    Raises:
        ValueError: If no row has the column; the text lists those there are.
    """
    if split_by in ("single_turn_prompt", "conv_id"):
        return
    names: dict[str, None] = {}
    for row in rows:
        if get_column(row, split_by) is not None:
            return
        for name, value in row.items():
            keys = [f"{name}.{key}" for key in value] if isinstance(value, Mapping) else [name]
            names.update(dict.fromkeys(keys))
    raise ValueError(f"{flag} {split_by}: no row has this column; there are {', '.join(names)}.")


def is_eval_task(key: str, eval_ratio: float) -> bool:
    """Tell whether the task `key` is held out, given the share of tasks to hold out.

    Args:
        key: Key from `task_key`.
        eval_ratio: In [0, 1). A larger ratio keeps every task that a smaller one held out.
    """
    digest = hashlib.sha256(f"{_SALT}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < eval_ratio


def check_eval_ratio(eval_ratio: float) -> None:
    """Raise ValueError unless `eval_ratio` is in [0, 1)."""
    if not 0 <= eval_ratio < 1:
        raise ValueError(f"eval_ratio must be in [0, 1), got {eval_ratio}.")
