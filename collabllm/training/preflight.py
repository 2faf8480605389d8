"""What will be trained on and what will be lost, before any weights load."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from collabllm.data_processing.tokenization import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_LOST_SHARE = 0.05
NUM_EXAMPLES = 3
_ENDS = 4  # parts of a row that an example shows, at either end
_LONGEST, _KEPT = 400, 150  # characters of a part that is shown whole; of either end of others
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass
class Preflight:
    """Counts of one side of the data, and a few examples to look at.

    An item is what the method learns from: a kept reply, a pair, a prompt. A row may hold several.
    """

    noun: str
    """What the items are called, in the plural."""
    num_rows: int = 0
    num_dropped_rows: int = 0
    num_items: int = 0
    num_lost: int = 0
    num_tokens: int = 0
    num_trained_tokens: int = 0
    length_quantiles: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def set_lengths(self, lengths: Iterable[int]) -> None:
        """Summarize the lengths of the sequences that are read, in tokens."""
        known = [length for length in lengths if length]
        self.num_tokens = sum(known)
        self.length_quantiles = {
            f"{q:.0%}": int(np.quantile(known or [0], q, method="nearest")) for q in _QUANTILES
        }

    def to_metrics(self) -> dict[str, float]:
        """Return the counts as flat numbers for a tracker."""
        return {
            "preflight/rows": self.num_rows,
            "preflight/rows_dropped": self.num_dropped_rows,
            f"preflight/{self.noun}": self.num_items,
            f"preflight/{self.noun}_lost": self.num_lost,
            "preflight/tokens": self.num_tokens,
            "preflight/tokens_trained": self.num_trained_tokens,
        }

    def to_text(self, title: str) -> str:
        """Write the report."""
        lengths = ", ".join(f"{name} {length}" for name, length in self.length_quantiles.items())
        lines = [
            f"Preflight, {title}: {self.num_items - self.num_lost:,} {self.noun} in "
            f"{self.num_rows:,} rows",
            f"  tokens read {self.num_tokens:,}, trained {self.num_trained_tokens:,} "
            "(the assistant's only)",
            f"  length in tokens: {lengths}",
            f"  lost to max_length: {self.num_lost:,} {self.noun}, "
            f"{self.num_dropped_rows:,} whole rows",
            *(f"  {note}" for note in self.notes),
        ]
        for idx, example in enumerate(self.examples, start=1):
            lines.append(f"  example {idx}, trained part between << and >>:")
            lines += [f"    {line}" for line in example.splitlines()]
        return "\n".join(lines)

    def check(self, max_length: int, allow_truncation: bool) -> None:
        """Stop a run that would train on nothing or lose too much.

        Raises:
            ValueError: If no token would train, or more than `MAX_LOST_SHARE` of the items would
                be lost and that is not allowed.
        """
        if not self.num_trained_tokens:
            raise ValueError(
                f"Nothing would train: of {self.num_items} {self.noun} none fits into "
                f"max_length={max_length}. Raise --max_length."
            )
        self.check_lost(max_length, allow_truncation)

    def check_lost(self, max_length: int, allow_truncation: bool) -> None:
        """Stop a run that would lose all or too much; what trains may not be known yet.

        Raises:
            ValueError: If no row is left, or more than `MAX_LOST_SHARE` of the items would be lost
                and that is not allowed.
        """
        lost = self.num_lost / max(self.num_items, 1)
        if not self.num_rows:
            raise ValueError(
                f"Nothing would train: of {self.num_items} {self.noun} none fits into "
                f"max_length={max_length}. Raise --max_length."
            )
        if lost > MAX_LOST_SHARE and not allow_truncation:
            raise ValueError(
                f"{self.num_lost} of {self.num_items} {self.noun} ({lost:.1%}) do not fit into "
                f"max_length={max_length}. Raise --max_length, or accept the loss with "
                "--allow_truncation."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values."""
        return asdict(self)


def mark_trained(
    input_ids: Sequence[int], labels: Sequence[int], tokenizer: "PreTrainedTokenizerBase"
) -> str:
    """Write a row's text with its trained parts between `<<` and `>>`, the middle left out."""
    pieces, position = [], 0
    while position < len(labels):
        end = position
        while end < len(labels) and (labels[end] == IGNORE_INDEX) == (
            labels[position] == IGNORE_INDEX
        ):
            end += 1
        text = cut_middle(str(tokenizer.decode(input_ids[position:end])))
        pieces.append(text if labels[position] == IGNORE_INDEX else f"<<{text}>>")
        position = end
    more = len(pieces) - 2 * _ENDS
    if more > 0:
        pieces[_ENDS:-_ENDS] = [f"\n[... {more} more parts ...]\n"]
    return "".join(pieces)


def cut_middle(text: str) -> str:
    """Return a text as it is, or, where it is too long to show, its beginning and its end."""
    if len(text) <= _LONGEST:
        return text
    left_out = len(text) - 2 * _KEPT
    return f"{text[:_KEPT]} [... {left_out:,} characters ...] {text[-_KEPT:]}"
