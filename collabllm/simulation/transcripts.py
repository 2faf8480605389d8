"""Records of simulated conversations: append-only JSON Lines that survive a kill."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

_MIN_FREE_BYTES = 50_000_000
Key = tuple[str, int]


class TranscriptWriter:
    """Appends one line a conversation and flushes it.

    With `resume`, a torn last line is cut off, failed conversations are taken out so that they run
    again, and finished ones are in `done`.

    Args:
        path: The JSONL file.
        resume: Go on with an existing file.

    Raises:
        FileExistsError: If there is a file and `resume` is False.
        OSError: If the file cannot be written, or the disk is nearly full.
        ValueError: If a line other than the last is not a record.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.done: set[Key] = set()
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
            self._repair()
        self._stream = self.path.open("a", encoding="utf-8")

    def _repair(self) -> None:
        kept = []
        failed = 0
        for record in read_transcripts(self.path):
            if record["failed"]:
                failed += 1
            else:
                kept.append(record)
                self.done.add((record["task_id"], record["rollout_idx"]))
        scratch = self.path.with_name(self.path.name + ".tmp")
        scratch.write_text("".join(map(_to_line, kept)), encoding="utf-8")
        scratch.replace(self.path)
        logger.info(
            "Resuming: %d conversations are done, %d failed ones run again.", len(kept), failed
        )

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; it is with the operating system when this returns."""
        self._stream.write(_to_line(record))
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> "TranscriptWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_transcripts(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; a torn last line, left by a kill, is passed over.

    Raises:
        ValueError: If another line is not a record.
    """
    with Path(path).open(encoding="utf-8", errors="replace") as stream:
        lines = enumerate(stream, start=1)
        for number, line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    logger.warning("%s: the torn last line %d is dropped.", path, number)
                    return
                raise ValueError(f"{path} line {number}: not a record ({error}).") from error
            if not isinstance(record, dict) or "task_id" not in record:
                raise ValueError(f"{path} line {number}: not a transcript record.")
            yield record


def _to_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
