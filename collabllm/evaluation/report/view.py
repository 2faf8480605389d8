"""What scripts/view.py does: the report's viewer for any transcript file or dataset."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from collabllm.data_processing.loading import BUNDLED_DATASET, load_multiturn_dataset
from collabllm.evaluation.report.conversations import from_dataset, from_transcript
from collabllm.evaluation.report.page import render
from collabllm.simulation.transcripts import read_transcripts


def view(
    file: str, dataset_split: str = "train", limit: int = 500, output_file: str | None = None
) -> Path:
    """Write the page and return its path.

    Args:
        file: Transcript file, or dataset: file, folder, Hub id, or `demo`.
        dataset_split: Split of a Hub dataset.
        limit: Most conversations to show.
        output_file: HTML file to write; by default the input's name.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is neither transcripts nor a multi-turn dataset.
    """
    source = Path(file)
    if _is_transcript_file(source):
        lines = islice(read_transcripts(source), limit)
        conversations = [from_transcript(line) for line in lines]
    else:
        dataset = load_multiturn_dataset(file, dataset_split)
        wanted: dict[Any, None] = {}
        for conv_id in dataset["conv_id"]:
            wanted.setdefault(conv_id)
            if len(wanted) > limit:
                break
        chosen = set(list(wanted)[:limit])
        conversations = from_dataset(row for row in dataset if row["conv_id"] in chosen)
    if not conversations:
        raise ValueError(f"{file}: has no conversations.")
    name = source.stem if source.suffix else file.replace("/", "--")
    output = Path(output_file or f"{name}.html")
    return render(output, title=f"Conversations of {file}", conversations=conversations)


def _is_transcript_file(path: Path) -> bool:
    """Tell a transcript file from a dataset by its first line."""
    if path.suffix != ".jsonl" or str(path) == BUNDLED_DATASET:
        return False
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    with path.open(encoding="utf-8", errors="replace") as stream:
        try:
            first = json.loads(stream.readline())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line 1: not JSON ({error}).") from error
    return isinstance(first, dict) and {"messages", "termination_reason"} <= first.keys()
