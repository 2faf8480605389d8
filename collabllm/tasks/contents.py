"""Hashes of what a run reads from files, so that it does not go on with other tasks or weights."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from collabllm.files import find_split_file, is_saved_dataset
from collabllm.tasks.task import Task


def content_hashes(tasks: Iterable[Task], adapters: Iterable[str | None]) -> dict[str, str]:
    """Return the hash of each task and of each adapter that lies on this machine, by its name.

    Of an adapter only the weights count: its config has sets, which are saved in any order.

    Args:
        tasks: All that they hold counts.
        adapters: Folders; Hub ids and None are passed over.
    """
    found = {f"task {task.task_id}": _hash(_to_text(task)) for task in tasks}
    for adapter in filter(None, adapters):
        files = _weights(Path(adapter))
        if files:
            found[f"adapter {adapter}"] = _hash("".join(map(_hash_file, files)))
    return found


def hash_files(path: str | Path, split: str = "train") -> str:
    """Return the hash of the rows or weights at a path; empty where none lie on this machine.

    Args:
        path: A file or folder of rows, an adapter's folder, or what is neither, such as a Hub id.
        split: Split that is read of a folder of rows.
    """
    place = Path(path).expanduser()
    files = [place] if place.is_file() else _weights(place)
    if is_saved_dataset(place):
        files = sorted(place.rglob("*.arrow"))
    elif not files and (rows := find_split_file(place, split)):
        files = [rows]
    return _hash("".join(map(_hash_file, files))) if files else ""


def _weights(adapter: Path) -> list[Path]:
    return sorted(adapter.glob("adapter_model*"))


def _to_text(task: Task) -> str:
    return json.dumps(task, default=_to_json, sort_keys=True)


def _to_json(part: Any) -> Any:
    """Leave out what says nothing, so that a field of a later version changes no hash."""
    if isinstance(part, Mapping):
        return dict(part)
    values = getattr(part, "__dict__", None)
    return {k: v for k, v in values.items() if v} if values else str(part)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hash_file(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
