"""Values of other people's rows, checked: each refuses with a ValueError what does not belong."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from collabllm.messages import shorten

Row = Mapping[str, Any]


def read_text(row: Row, name: str) -> str:
    """Return a text that is not empty, or a number as one."""
    value = row.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _is_blank(value):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a non-empty text, got {shorten(value)}.")
    return value


def read_optional_text(row: Row, name: str) -> str:
    """Return a text, or a number as one; empty where there is none."""
    value = row.get(name)
    return "" if value is None or _is_blank(value) else read_text(row, name)


def read_list(row: Row, name: str) -> list[Any]:
    """Return a list; empty where there is none."""
    value = row.get(name)
    if value is None or _is_blank(value):
        return []
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list, got {shorten(value)}.")
    return list(value)


def read_object(row: Row, name: str) -> Row:
    """Return an object, or what a text holds as JSON; empty where there is none."""
    value = row.get(name)
    if isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):  # named below
            value = json.loads(value if value.strip() else "{}")
    if value is not None and value != [] and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object, got {shorten(value)}.")
    return value or {}


def _is_blank(value: Any) -> bool:
    """Tell an empty text, and the NaN that a table has where there is none."""
    return not value.strip() if isinstance(value, str) else _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def read_rows(row: Row, name: str) -> list[Row]:
    """Return a list of objects."""
    found = read_list(row, name)
    for entry in found:
        if not isinstance(entry, Mapping):
            raise ValueError(f"{name} must be a list of objects, got {shorten(entry)} in it.")
    return found


def read_flag(row: Row, name: str) -> bool:
    """Return whether something holds; words and 0 and 1 will do."""
    value = row[name]
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise ValueError(f"{name} must be true or false, got {shorten(value)}.")
