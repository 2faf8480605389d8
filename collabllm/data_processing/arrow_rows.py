"""Write rows with free-form extra columns to a memory-mapped Arrow file."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Json, List, Value

from collabllm import messages

FIXED_FEATURES = {
    "prompt": List({"role": Value("string"), "content": Value("string")}),
    "completion": Value("string"),
    "turn_id": Value("int64"),
    "score": Value("float64"),
}


def write_arrow(read_rows: Callable[..., Iterator[dict[str, Any]]], kwargs: Any) -> Dataset:
    """Write rows to the datasets cache in two passes: find the column types, then write.

    Args:
        read_rows: Called with `kwargs`, and with `report=False` the second time.
        kwargs: Its arguments, by which the cache tells one dataset from another.
    """
    kinds: dict[str, Any] = {}
    for row in read_rows(**kwargs):
        for column, value in row.items():
            if column not in FIXED_FEATURES:
                kinds[column] = _merge_kinds(kinds.get(column), _kind(value))
    features = {column: _to_feature(kind) for column, kind in kinds.items()}
    return Dataset.from_generator(
        _fill_columns,
        features=Features({**FIXED_FEATURES, **features}),
        gen_kwargs={
            "read_rows": read_rows,
            "kwargs": kwargs,
            "columns": tuple(kinds),
            "code": hash_code(),
        },
        split="train",
    )


@lru_cache(maxsize=1)
def hash_code() -> str:
    """Hash the code that reads rows: the cache knows imported functions by their names only."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(messages.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


# `columns` is no list: from_generator takes a list in gen_kwargs for shards, one run for each.
def _fill_columns(
    read_rows: Callable[..., Iterator[dict[str, Any]]],
    kwargs: Any,
    columns: tuple[str, ...],
    code: str,
) -> Iterator[dict[str, Any]]:
    """Yield rows as they are written; `code` only tells the cache one reader from another."""
    for row in read_rows(**kwargs, report=False):
        prompt = [{"role": m["role"], "content": m["content"]} for m in row["prompt"]]
        yield {**{column: row.get(column) for column in columns}, **row, "prompt": prompt}


def _kind(value: Any) -> Any:
    """Describe a JSON value's type: a name, [kind] for a list, {key: kind} for a dict."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        kind = None
        for item in value:
            kind = _merge_kinds(kind, _kind(item))
        return [kind]
    if isinstance(value, Mapping) and value:
        return {key: _kind(item) for key, item in value.items()}
    return "json"


def _merge_kinds(first: Any, second: Any) -> Any:
    """Find a type that holds both; dicts with other keys, and all other conflicts, are `json`."""
    if first is None or second is None or first == second:
        return second if first is None else first
    if {str(first), str(second)} == {"int64", "float64"}:
        return "float64"
    if isinstance(first, list) and isinstance(second, list):
        return [_merge_kinds(first[0], second[0])]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return {key: _merge_kinds(first[key], second[key]) for key in first}
    return "json"


def _to_feature(kind: Any) -> Any:
    if isinstance(kind, list):
        return List(_to_feature(kind[0]))
    if isinstance(kind, dict):
        return {key: _to_feature(item) for key, item in kind.items()}
    if kind == "json":
        return Json()
    return Value(kind or "null")
