"""What scripts/view.py does: the report's viewer for any transcript file or dataset."""

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

from collabllm.data_processing.loading import BUNDLED_DATASET, load_multiturn_dataset
from collabllm.evaluation.report.conversations import from_dataset, from_transcript
from collabllm.evaluation.report.page import render
from collabllm.simulation.transcripts import read_transcripts


def view(args: argparse.Namespace) -> Path:
    """Write the page and return its path.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is neither transcripts nor a multi-turn dataset.
    """
    source = Path(args.file)
    if _is_transcript_file(source):
        lines = islice(read_transcripts(source), args.limit)
        conversations = [from_transcript(line) for line in lines]
    else:
        dataset = load_multiturn_dataset(args.file, args.split)
        wanted: dict[Any, None] = {}
        for conv_id in dataset["conv_id"]:
            wanted.setdefault(conv_id)
            if len(wanted) > args.limit:
                break
        chosen = set(list(wanted)[: args.limit])
        conversations = from_dataset(row for row in dataset if row["conv_id"] in chosen)
    if not conversations:
        raise ValueError(f"{args.file}: has no conversations.")
    name = source.stem if source.suffix else args.file.replace("/", "--")
    output = Path(args.output or f"{name}.html")
    return render(output, title=f"Conversations of {args.file}", conversations=conversations)


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
