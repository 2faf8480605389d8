"""What the confidence in a turn's order needs of its rewards: means, counts, spread of futures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rewards = Sequence[Sequence[float | None]]
"""Rewards of one turn: for each candidate those of its futures, None where missing, by seed."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class TurnSummary:
    """What the posterior needs of a turn.

    `means` and `counts` have one entry per candidate; `variance` is that of futures, with `df`
    degrees of freedom. Futures of one position share their seed in all candidates, so what a
    position adds to all of them is no noise and is taken out.
    """

    means: Array
    counts: Array
    variance: float
    df: float

    @property
    def between(self) -> float:
        """Mean square of the candidates' means, per future: as `variance` if they do not differ."""
        num = len(self.means)
        if num < 2:
            return 0.0
        grand = float((self.counts * self.means).sum() / self.counts.sum())
        return float((self.counts * (self.means - grand) ** 2).sum() / (num - 1))

    @property
    def futures(self) -> float:
        """Futures per candidate: harmonic mean."""
        return float(len(self.counts) / (1 / self.counts).sum())


def summarize_turn(rewards: Rewards) -> TurnSummary | None:
    """Summarize a turn; None where fewer than two candidates have a finite reward."""
    known = [[finite(reward) for reward in candidate] for candidate in rewards]
    width = max((len(candidate) for candidate in known), default=0)
    table = np.full((len(known), width), np.nan)  # [candidates, futures]
    for row, candidate in zip(table, known, strict=True):
        row[: len(candidate)] = candidate
    counts = (~np.isnan(table)).sum(axis=1).astype(float)
    if (counts > 0).sum() < 2:
        return None
    table, counts = table[counts > 0], counts[counts > 0]
    whole = ~np.isnan(table).any(axis=0)
    num, shared = len(table), int(whole.sum())
    if shared >= 2:
        columns = table[:, whole].mean(axis=0)
        table[:, whole] += columns.mean() - columns
        rest = table[:, whole] - table[:, whole].mean(axis=1, keepdims=True)
        df = float((num - 1) * (shared - 1))
    else:
        rest = table - np.nanmean(table, axis=1, keepdims=True)
        df = float((counts - 1).sum())
    squares = float(np.nansum(rest**2))
    return TurnSummary(np.nanmean(table, axis=1), counts, squares / df if df else 0.0, df)


def finite(reward: float | None) -> float:
    """Return a reward, or NaN for one that is missing or infinite."""
    return reward if reward is not None and math.isfinite(reward) else math.nan
