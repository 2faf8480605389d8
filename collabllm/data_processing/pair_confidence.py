"""How sure a dataset is of the order of two replies to one turn."""

from collections import defaultdict
from typing import Any

from datasets import Dataset

from collabllm.data_processing.confidence import Posterior, VariancePool
from collabllm.data_processing.splitting import get_column

FUTURE_REWARDS = ("rewards.total", "rewards.MR")
"""Columns with one reward a future: ours, and that of the Hub datasets."""


class PairConfidence:
    """Gives P(one reply is better than another of its turn), with the prior of the whole dataset.

    Args:
        table: In the dataset format, with one of `FUTURE_REWARDS`.

    Raises:
        ValueError: If a row has no list of rewards there.
    """

    def __init__(self, table: Dataset) -> None:
        self._places: list[tuple[tuple[Any, Any], int]] = []
        self._turns: dict[tuple[Any, Any], list[list[float | None]]] = defaultdict(list)
        names = [n for n in ("conv_id", "turn_id", "rewards") if n in table.column_names]
        for idx, row in enumerate(table.select_columns(names)):
            found = (get_column(row, column) for column in FUTURE_REWARDS)
            rewards = next((value for value in found if isinstance(value, list)), None)
            if rewards is None:
                raise ValueError(
                    f"row {idx + 1}: min_confidence needs {' or '.join(map(repr, FUTURE_REWARDS))}"
                    ", a list with one reward a future; use min_score_gap for datasets without it."
                )
            key = (row["conv_id"], row["turn_id"])
            self._places.append((key, len(self._turns[key])))
            self._turns[key].append(rewards)
        self._pool = VariancePool(self._turns.values())

    def of(self, row_idx: int, other_row_idx: int) -> float:
        """Return P(the reply of a row is better than that of another row of its turn)."""
        key, position = self._places[row_idx]
        _, other = self._places[other_row_idx]
        return Posterior.of_turn(self._turns[key], self._pool).p_above(position, other)
