"""Records of conversations in append-only files."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collabllm.files import JsonLinesWriter, read_json_lines

logger = logging.getLogger(__name__)

Key = tuple[str, int]


class TranscriptWriter(JsonLinesWriter):
    """Appends one line a conversation.

    With `resume`, failed conversations are taken out so that they run again, and finished ones are
    in `done`.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.done: set[Key] = set()
        super().__init__(path, resume=resume)

    def choose_kept(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep finished conversations."""
        if any("task_id" not in record for record in records):
            raise ValueError(f"{self.path}: not a transcript file; choose another --output.")
        kept = [record for record in records if not record["failed"]]
        self.done = {(record["task_id"], record["rollout_idx"]) for record in kept}
        logger.info(
            "Resuming: %d conversations are done, %d failed ones run again.",
            len(kept),
            len(records) - len(kept),
        )
        return kept


def read_transcripts(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; a torn last line, left by a kill, is passed over.

    Raises:
        ValueError: If another line is not a record.
    """
    for number, record in enumerate(read_json_lines(path), start=1):
        if "task_id" not in record:
            raise ValueError(f"{path} line {number}: not a transcript record.")
        yield record
