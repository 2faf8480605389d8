"""What will be trained on and what will be lost, before any weights load."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from collabllm.data_processing.tokenization import IGNORE_INDEX, tokenize_conversation
from collabllm.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MAX_LOST_SHARE = 0.05
_NUM_EXAMPLES = 3
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass
class Preflight:
    """Counts of one split's rows, and three of them to look at."""

    num_rows: int = 0
    num_dropped_rows: int = 0
    num_replies: int = 0
    num_lost_replies: int = 0
    num_tokens: int = 0
    trained_by_role: dict[str, int] = field(default_factory=dict)
    length_quantiles: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def num_trained_tokens(self) -> int:
        """Tokens with a loss."""
        return sum(self.trained_by_role.values())

    def to_metrics(self) -> dict[str, float]:
        """Return the counts as flat numbers for a tracker."""
        return {
            "preflight/rows": self.num_rows,
            "preflight/rows_dropped": self.num_dropped_rows,
            "preflight/replies": self.num_replies,
            "preflight/replies_lost": self.num_lost_replies,
            "preflight/tokens": self.num_tokens,
            "preflight/tokens_trained": self.num_trained_tokens,
        }

    def to_text(self, title: str) -> str:
        """Write the report."""
        roles = ", ".join(f"{role} {count:,}" for role, count in self.trained_by_role.items())
        lengths = ", ".join(f"{name} {length}" for name, length in self.length_quantiles.items())
        lines = [
            f"Preflight, {title}: {self.num_rows:,} rows with {self.num_replies:,} kept replies",
            f"  tokens read {self.num_tokens:,}, trained {self.num_trained_tokens:,} ({roles})",
            f"  row length in tokens: {lengths}",
            f"  lost to max_length: {self.num_lost_replies:,} replies, "
            f"{self.num_dropped_rows:,} whole rows",
        ]
        for idx, example in enumerate(self.examples, start=1):
            lines.append(f"  example {idx}, trained part between << and >>:")
            lines += [f"    {line}" for line in example.splitlines()]
        return "\n".join(lines)


def tokenize_split(
    rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[Dataset, Preflight]:
    """Tokenize a split and count what happens to it; rows in which nothing fits are dropped.

    Returns:
        Rows with `input_ids` and `labels`, in the order of `rows`, and the counts.
    """
    report = Preflight()
    tokenized = rows.map(
        lambda row: dict(tokenize_conversation(row["messages"], tokenizer, max_length)),
        remove_columns=rows.column_names,
        desc="Tokenizing",
    )
    roles: Counter[str] = Counter({"assistant": 0, "user": 0, "system": 0})
    lengths = []
    for messages, row in zip(rows["messages"], tokenized, strict=True):
        runs = _trained_runs(row, tokenizer)
        report.num_lost_replies += row["num_lost_replies"]
        report.num_replies += len(runs) + row["num_lost_replies"]
        report.num_dropped_rows += not row["input_ids"]
        lengths.append(len(row["input_ids"]))
        for count, text in runs:
            roles[_role_of(text, messages)] += count
        if row["input_ids"] and len(report.examples) < _NUM_EXAMPLES:
            report.examples.append(_mark_trained(row, tokenizer))
    kept = tokenized.filter(lambda row: len(row["input_ids"]) > 0, desc="Dropping empty rows")
    report.num_rows, report.num_tokens = len(kept), sum(lengths)
    report.trained_by_role = dict(roles)
    lengths = [length for length in lengths if length] or [0]
    report.length_quantiles = {
        f"{q:.0%}": int(np.quantile(lengths, q, method="nearest")) for q in _QUANTILES
    }
    return kept.select_columns(["input_ids", "labels"]), report


def check_preflight(report: Preflight, max_length: int, allow_truncation: bool) -> None:
    """Stop a run that would train on nothing or lose too much.

    Raises:
        ValueError: If no token would train, a user or system token would, or more than
            `MAX_LOST_SHARE` of the kept replies would be lost and that is not allowed.
    """
    lost = report.num_lost_replies / max(report.num_replies, 1)
    if not report.num_trained_tokens:
        raise ValueError(
            f"Nothing would train: of {report.num_replies} kept replies none fits into "
            f"max_length={max_length}. Raise --max_length."
        )
    wrong = {role: n for role, n in report.trained_by_role.items() if role != "assistant" and n}
    if wrong:
        raise ValueError(
            f"The labels cover text that is not the assistant's: {wrong} tokens. The chat template "
            "changes message texts; please report it with the template."
        )
    if lost > MAX_LOST_SHARE and not allow_truncation:
        raise ValueError(
            f"{report.num_lost_replies} of {report.num_replies} kept replies ({lost:.1%}) do not "
            f"fit into max_length={max_length}. Raise --max_length, or accept the loss with "
            "--allow_truncation."
        )


def _trained_runs(
    row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase"
) -> list[tuple[int, str]]:
    """Return length and text of every stretch of tokens with a loss."""
    labels = np.array([IGNORE_INDEX, *row["labels"], IGNORE_INDEX])
    edges = np.flatnonzero(np.diff((labels != IGNORE_INDEX).astype(int)))
    return [
        (int(end - start), str(tokenizer.decode(row["input_ids"][start:end])))
        for start, end in edges.reshape(-1, 2)
    ]


def _role_of(text: str, messages: list[Message]) -> str:
    """Find whose message a trained text is; `unknown` would mean that the labels are wrong."""
    for role in ("assistant", "user", "system"):
        for message in messages:
            content = message["content"].strip()[:40]
            if message["role"] == role and content and content in text:
                return role
    return "unknown"


def _mark_trained(row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> str:
    pieces, position = [], 0
    labels = row["labels"]
    while position < len(labels):
        end = position
        while end < len(labels) and (labels[end] == IGNORE_INDEX) == (
            labels[position] == IGNORE_INDEX
        ):
            end += 1
        text = str(tokenizer.decode(row["input_ids"][position:end]))
        pieces.append(text if labels[position] == IGNORE_INDEX else f"<<{text}>>")
        position = end
    return "".join(pieces)
