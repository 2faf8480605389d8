"""Records of conversations in append-only files."""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collabllm.files import JsonLinesWriter, read_json_lines

logger = logging.getLogger(__name__)

Key = tuple[str, int]


class TranscriptWriter(JsonLinesWriter):
    """Appends one line per conversation.

    With `resume`, failed conversations are taken out so that they run again; finished ones are in
    `done`, and `endings` counts how they ended.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.done: set[Key] = set()
        self.endings: Counter[str] = Counter()
        super().__init__(path, resume=resume)

    def iter_kept(self, records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Keep finished conversations, each once; a file of any length is read one by one."""
        num_failed = 0
        for record in records:
            if "task_id" not in record:
                raise ValueError(f"{self.path}: not a transcript file; choose another --output.")
            key = (record["task_id"], record["rollout_idx"])
            if record["failed"] or key in self.done:
                num_failed += 1
                continue
            self.done.add(key)
            self.endings[record["termination_reason"]] += 1
            yield record
        logger.info(
            "Resuming: %d conversations are done, %d failed ones run again.",
            len(self.done),
            num_failed,
        )


def read_transcripts(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; a torn last line, left by a kill, is passed over.

    Raises:
        ValueError: If another line is not a record.
    """
    for number, record in enumerate(read_json_lines(path), start=1):
        if "task_id" not in record:
            raise ValueError(f"{path} line {number}: not a transcript record.")
        yield record
