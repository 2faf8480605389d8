"""What scripts/view.py does: the page of transcripts, a dataset, or a finished evaluation."""

import json
import logging
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from collabllm.evaluation.report.candidates import BEST_SCORE, show_turns
from collabllm.evaluation.report.conversations import Conversation, from_transcript
from collabllm.evaluation.report.page import check_replaceable, render
from collabllm.files import find_split_file
from collabllm.simulation.transcripts import read_transcripts

logger = logging.getLogger(__name__)

_TRANSCRIPT_COLUMNS = frozenset(("task_id", "messages", "termination_reason"))
_SAVED_DATASETS = ("dataset_info.json", "dataset_dict.json")


def view(
    file: str,
    *,
    dataset_split: str = "train",
    skip_bad_rows: bool = False,
    limit: int = 20_000,
    output_file: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page of a source and return its path.

    Args:
        file: A transcript file, a folder of them, an evaluation's folder (its report is made
            again), or a dataset: a file, a folder, a Hub id, or `demo`.
        dataset_split: Split of a Hub dataset.
        skip_bad_rows: Leave malformed rows of a dataset out, with a warning that counts them.
        limit: Most conversations to show; the page and the log say how many there are. 0: all.
        output_file: The HTML file; by default beside the source, or here for a Hub dataset.
        overwrite: Replace a file that is no former page of this source.

    Raises:
        FileExistsError: If there is such a file and `overwrite` is False.
        FileNotFoundError: If the source is not there.
        ValueError: If it holds neither transcripts nor a multi-turn dataset, or nothing.
    """
    path, output = Path(file), Path(output_file) if output_file else None
    if is_evaluation(path):
        from collabllm.evaluation.report.overview import write_report

        return write_report(path, path=output, overwrite=overwrite)
    source = str(path.resolve()) if path.exists() else file
    output = output or _default_output(file, path)
    check_replaceable(output, source, overwrite=overwrite)
    files = _transcript_files(path, dataset_split)
    number, conversations = _read(files) if files else _load(file, dataset_split, skip_bad_rows)
    if not number:
        raise ValueError(f"{file}: has no conversations.")
    note = ""
    if limit and number > limit:
        note = f"The first {limit:,} of {number:,} conversations; --limit 0 shows all."
        logger.warning(note)
    return render(
        output,
        title=f"Conversations of {file}",
        conversations=islice(conversations, limit or None),
        metrics=() if files else (BEST_SCORE,),
        source=source,
        note=note,
        overwrite=overwrite,
    )


def is_evaluation(path: Path) -> bool:
    """Tell whether a folder is the output of scripts/evaluate.py."""
    return path.is_dir() and (path / "plan.json").is_file()


def _default_output(file: str, path: Path) -> Path:
    if path.is_dir():
        return path / "conversations.html"
    if path.exists():
        return path.with_suffix(".html")
    return Path(f"{file.replace('/', '--')}.html")


def _transcript_files(path: Path, split: str) -> list[Path]:
    """Return the transcript files that a source names; none where it is a dataset.

    Raises:
        FileNotFoundError: If it looks like a file and is not there.
        ValueError: If a folder has neither transcripts nor a dataset.
    """
    if path.is_dir():
        if any((path / name).exists() for name in _SAVED_DATASETS):
            return []
        found = sorted(path.rglob("[!.]*.jsonl"))  # a run's journals begin with a dot
        files = [file for file in found if _has_transcripts(file)]
        if not files and find_split_file(path, split) is None:
            raise ValueError(
                f"{path}: no file in this folder has transcripts, and there is no {split}.jsonl, "
                ".json or .parquet."
            )
        return files
    if path.suffix != ".jsonl":
        return []
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    return [path] if _has_transcripts(path) else []


def _has_transcripts(file: Path) -> bool:
    """Tell a transcript file from others by its first line that is JSON.

    A run under way may have written none yet, or half of one; a dataset's are told when it loads.
    """
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        for line in filter(str.strip, stream):
            try:
                first = json.loads(line)
            except json.JSONDecodeError:
                continue
            return isinstance(first, dict) and first.keys() >= _TRANSCRIPT_COLUMNS
    logger.warning("%s: no line of it is whole JSON.", file)
    return False


def _read(files: Sequence[Path]) -> tuple[int, Iterator[Conversation]]:
    """Return the number of transcripts, and an iterator over them."""
    number = sum(_count_lines(file) for file in files)
    return number, map(from_transcript, chain.from_iterable(map(read_transcripts, files)))


def _count_lines(file: Path) -> int:
    with file.open("rb") as stream:
        return sum(not line.isspace() for line in stream)


def _load(file: str, split: str, skip_bad_rows: bool) -> tuple[int, Iterator[Conversation]]:
    """Return the number of a dataset's conversations, and an iterator over them."""
    from collabllm.data_processing.loading import load_multiturn_dataset

    dataset = load_multiturn_dataset(file, split, skip_bad_rows=skip_bad_rows)
    rows_of: dict[Any, list[int]] = {}
    for idx, conv_id in enumerate(dataset["conv_id"]):
        rows_of.setdefault(conv_id, []).append(idx)
    conversations = (
        show_turns(conv_id, [dataset[idx] for idx in rows]) for conv_id, rows in rows_of.items()
    )
    return len(rows_of), conversations
