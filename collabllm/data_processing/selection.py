"""Find the best and the worst scored reply of every turn, and the threshold to keep one."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from collabllm.data_processing.row_checks import (
    REQUIRED_COLUMNS,
    check_rows,
    describe_missing_columns,
    fill_turn_ids,
    report_skipped,
)
from collabllm.data_processing.splitting import get_column, task_key
from collabllm.messages import shorten

ConvId = int | str


@dataclass(frozen=True)
class Reply:
    """The best reply of one turn, by its row in the dataset, and the worst one beside it."""

    row_idx: int
    conv_id: ConvId
    turn_id: int
    score: float
    worst_row_idx: int
    worst_score: float
    task: str


@dataclass(frozen=True)
class Selection:
    """The best replies of a dataset, by conversation, and what the threshold does to them."""

    conversations: list[list[Reply]]
    threshold: float
    num_rows: int

    @property
    def num_turns(self) -> int:
        """Number of turns, kept or not."""
        return sum(len(conversation) for conversation in self.conversations)

    @property
    def num_kept(self) -> int:
        """Number of turns whose best reply reaches the threshold."""
        return sum(
            reply.score >= self.threshold
            for conversation in self.conversations
            for reply in conversation
        )

    @property
    def highest(self) -> float:
        """Highest score of all."""
        return max(reply.score for conversation in self.conversations for reply in conversation)

    def describe(self) -> str:
        """Say in one sentence what was kept."""
        counts = (
            f"{self.num_rows} rows, {len(self.conversations)} conversations, {self.num_turns} turns"
        )
        if self.threshold == -math.inf:
            return f"{counts}: the best reply of each is kept, whatever its score."
        return (
            f"{counts}: best reply kept in {self.num_kept}, below the threshold of "
            f"{self.threshold:g} in {self.num_turns - self.num_kept}."
        )


def to_table(dataset: Dataset | Iterable[Mapping[str, Any]]) -> Dataset:
    """Return a `Dataset` with `turn_id` filled in, and make a checked one of any other rows.

    Raises:
        ValueError: If it is a dict of splits, or has not the columns or rows of the dataset format.
    """
    if isinstance(dataset, Mapping) and {"prompt", "completion"} <= set(dataset):
        dataset = Dataset.from_dict(dict(dataset))
    if isinstance(dataset, Mapping):
        raise ValueError(
            f"The dataset has splits, {', '.join(map(str, dataset))}: give the rows of one of them."
        )
    if isinstance(dataset, Dataset):
        needed = set(REQUIRED_COLUMNS) - {"score"}  # another column may hold it
        if missing := sorted(needed - set(dataset.column_names)):
            raise ValueError(f"dataset: {describe_missing_columns(missing, dataset.column_names)}")
        return fill_turn_ids(dataset)
    rows = (
        (f"row {idx}", dict(row) if isinstance(row, Mapping) else row)
        for idx, row in enumerate(dataset, start=1)
    )
    return Dataset.from_list(list(check_rows(rows, "dataset")), on_mixed_types="use_json")


def select_replies(
    table: Dataset,
    score_column: str,
    lower_bound_metric: float | None,
    lower_bound_percentile: float | None,
    split_by: str,
) -> Selection:
    """Rank the replies of each turn by `score_column`; of equal ones the first in the table wins.

    Raises:
        ValueError: If a row has no such score, rows of one turn have different prompts, or the
            percentile is outside [0, 100].
    """
    turns: dict[tuple[ConvId, int], list[Reply]] = defaultdict(list)
    wanted = {
        name.partition(".")[0] if name not in table.column_names else name
        for name in (score_column, split_by, "conv_id", "turn_id")
    }
    check_prompts(table)
    for idx, row in enumerate(table.select_columns(sorted(wanted & set(table.column_names)))):
        score = _read_score(row, score_column, idx)
        key = (row["conv_id"], row["turn_id"])
        task = task_key(row, split_by)
        turns[key].append(Reply(idx, *key, score, idx, score, task))
    conversations: dict[ConvId, list[Reply]] = defaultdict(list)
    for key in sorted(turns, key=lambda key: (isinstance(key[0], str), key)):
        best = max(turns[key], key=lambda reply: reply.score)
        worst = min(turns[key], key=lambda reply: reply.score)
        conversations[key[0]].append(
            Reply(best.row_idx, *key, best.score, worst.row_idx, worst.score, best.task)
        )
    threshold = -math.inf if lower_bound_metric is None else lower_bound_metric
    if lower_bound_percentile is not None:
        threshold = _percentile(list(conversations.values()), lower_bound_percentile)
    return Selection(list(conversations.values()), threshold, len(table))


def check_prompts(table: Dataset, name: str = "dataset") -> None:
    """Refuse a table in which replies of one turn answer different prompts.

    Args:
        table: Checked rows.
        name: Of the file or dataset, for the error.

    Raises:
        ValueError: With both rows.
    """
    prompts: dict[tuple[ConvId, int], tuple[int, int]] = {}  # hash of a turn's prompt, its row
    for idx, row in enumerate(table.select_columns(["conv_id", "turn_id", "prompt"])):
        key = (row["conv_id"], row["turn_id"])
        prompt = hash(tuple((m["role"], m["content"]) for m in row["prompt"]))
        first_prompt, first_idx = prompts.setdefault(key, (prompt, idx))
        if prompt != first_prompt:
            raise ValueError(
                f"{name}: row {idx + 1} and row {first_idx + 1} have conv_id {key[0]!r} and "
                f"turn_id {key[1]} but different prompts, so their replies cannot be compared. "
                "Where datasets were joined, give each conversation a conv_id of its own, or name "
                "them all as --hf_dataset_path A B."
            )


def _percentile(conversations: Sequence[Sequence[Reply]], percentile: float) -> float:
    if not 0 <= percentile <= 100:
        raise ValueError(f"lower_bound_percentile must be in [0, 100], got {percentile}.")
    scores = [reply.score for conversation in conversations for reply in conversation]
    return float(np.percentile(scores, percentile))


def drop_unscored(table: Dataset, score_column: str, name: str) -> Dataset:
    """Leave out rows whose `score_column` cannot be read, with a warning that counts them."""
    errors, good = [], []
    for idx, row in enumerate(table):
        try:
            _read_score(row, score_column, idx)
            good.append(idx)
        except ValueError as error:
            errors.append(str(error))
    report_skipped(name, errors)
    return table.select(good) if errors else table


def _read_score(row: Mapping[str, Any], score_column: str, idx: int) -> float:
    value = get_column(row, score_column)
    parts = [p for p in value if p is not None] if isinstance(value, list) else [value]
    if not parts or not all(isinstance(p, (int, float)) and math.isfinite(p) for p in parts):
        raise ValueError(
            f"row {idx + 1}: {score_column!r} must be a finite number or a list of them, got "
            f"{shorten(value)}; name another score_column, remove the row, "
            "or leave such rows out (--skip_bad_rows)."
        )
    return float(np.mean(parts))
