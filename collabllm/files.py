"""Files that survive a kill: append-only JSON Lines, whole files replaced at once."""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

logger = logging.getLogger(__name__)

_MIN_FREE_BYTES = 50_000_000


class JsonLinesWriter:
    """Appends JSON lines to a file, several at a time, and flushes them.

    Args:
        path: The JSONL file.
        resume: Go on with an existing file; what a kill left half-written is cut off.

    Raises:
        FileExistsError: If there is a file and `resume` is False.
        OSError: If the file cannot be written, or the disk is nearly full.
        ValueError: If a line other than the last is not a record.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        if free < _MIN_FREE_BYTES:
            raise OSError(
                f"{self.path.parent}: only {free / 1e6:.0f} MB are free; make room first."
            )
        if self.path.exists() and self.path.stat().st_size:
            if not resume:
                raise FileExistsError(
                    f"{self.path} exists; go on with --resume, or choose another --output."
                )
            kept = self.choose_kept(list(read_json_lines(self.path)))
            _replace_lines(self.path, map(_to_line, kept))
        self._stream = self.path.open("a", encoding="utf-8")

    def choose_kept(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the records that a resumed file keeps; all of them unless overridden."""
        return records

    def write(self, *records: dict[str, Any]) -> None:
        """Append records at once; they are with the operating system when this returns."""
        self._stream.write("".join(map(_to_line, records)))
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file; a torn last line is passed over with a warning.

    Raises:
        ValueError: If another line is not a JSON object.
    """
    with Path(path).open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    logger.warning("%s: the torn last line %d is dropped.", path, number)
                    return
                raise ValueError(f"{path} line {number}: not a record ({error}).") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path} line {number}: not a JSON object.")
            yield record


def sort_json_lines(path: str | Path, columns: Sequence[str]) -> None:
    """Sort a closed file by columns: its lines came as conversations ended, in no fixed order."""
    with Path(path).open(encoding="utf-8") as stream:
        lines = list(stream)
    records = map(json.loads, lines)
    keys = [tuple(record[column] for column in columns) for record in records]
    order = sorted(range(len(lines)), key=keys.__getitem__)
    _replace_lines(Path(path), (lines[idx] for idx in order))


def _replace_lines(path: Path, lines: Iterable[str]) -> None:
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.writelines(lines)
    scratch.replace(path)


def _to_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
