"""How sure sampled rewards are that one reply of a turn is better than another.

The best of several noisy means is high by luck, too, and two futures say little of their own
spread. So nothing is read from one turn alone (empirical Bayes): the spread of futures is pooled
over the dataset, and how much candidates differ has a prior, also fitted to the dataset, in which
they may not differ at all. The posterior shrinks a turn's scores towards their mean.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from collabllm.data_processing.turn_summary import (
    Array,
    Rewards,
    TurnSummary,
    finite,
    summarize_turn,
)

# Variance of the candidates of a turn, relative to that of futures; 0: they do not differ.
_RATIOS = np.array([0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
_PRIOR_NULL = 0.5  # of ratio 0, before any turn is seen
_PRIOR_TURNS = 10.0  # turns that this prior counts for
_POOL_DF = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)  # the more, the more alike are turns in variance
_SINGLE_DF = 1.0  # without a dataset
_BIN = 0.1
_MAX_STEPS = 200
_TINY = 1e-9


@dataclass(frozen=True)
class Prior:
    """What a dataset says about its turns.

    `variance` of futures counts as much as `df` degrees of freedom in each turn; `weights` are the
    shares of turns in which candidates differ by each of `_RATIOS`.
    """

    variance: float
    df: float
    weights: Array

    def pooled(self, turn: TurnSummary) -> tuple[float, float]:
        """Return the variance of a turn's futures and its degrees of freedom."""
        df = self.df + turn.df
        variance = (self.df * self.variance + turn.df * turn.variance) / df if df else 0.0
        scale = float(np.abs(turn.means).max())
        return max(variance, _TINY * max(scale, 1.0) ** 2), max(df, _SINGLE_DF)


class VariancePool:
    """Collects turns of a run or dataset, and fits their `Prior`."""

    def __init__(self, turns: Iterable[Rewards] = ()) -> None:
        self.turns: list[TurnSummary] = []
        self._prior: Prior | None = None
        for turn in turns:
            self.add(turn)

    def add(self, rewards: Rewards) -> None:
        """Add a turn; one with fewer than two rewarded candidates says nothing."""
        summary = summarize_turn(rewards)
        if summary is not None:
            self.turns.append(summary)
            # Fitting anew at each turn would cost more than it tells once there are many.
            if len(self.turns) < 50 or len(self.turns) % 20 == 0:
                self._prior = None

    @property
    def prior(self) -> Prior:
        """The prior that the turns give; a careful one without turns."""
        if self._prior is None:
            self._prior = fit_prior(self.turns)
        return self._prior


def fit_prior(turns: Sequence[TurnSummary]) -> Prior:
    """Fit variance, its degrees of freedom and the weights of the ratios by maximum likelihood."""
    start = np.full(len(_RATIOS), (1 - _PRIOR_NULL) / (len(_RATIOS) - 1))
    start[0] = _PRIOR_NULL
    informed = [turn for turn in turns if turn.df > 0]
    if not informed:
        return Prior(0.0, 0.0, start)
    # Few futures that happen to be equal are no proof of a variance of 0: add what one degree of
    # freedom of candidates that do not differ would be, the less the more is known.
    total = sum(turn.df for turn in informed)
    extra = sum(turn.between for turn in informed) / len(informed) / total
    variance = (pool_variance(informed) * total + extra) / (total + 1 / total)
    df = _fit_df(informed, variance)
    prior = Prior(variance, df, start)
    likelihoods = _likelihoods(informed, prior)
    weights = start
    for _ in range(_MAX_STEPS):  # EM, with the start as a Dirichlet prior
        shares = likelihoods * weights
        shares /= shares.sum(axis=1, keepdims=True)
        new = (shares.sum(axis=0) + _PRIOR_TURNS * start) / (len(informed) + _PRIOR_TURNS)
        done = np.abs(new - weights).max() < 1e-5
        weights = new
        if done:
            break
    return Prior(variance, df, weights)


def pool_variance(turns: Sequence[TurnSummary]) -> float:
    """Return the variance of futures over all turns; 0 where none has a degree of freedom."""
    total = sum(turn.df for turn in turns)
    return sum(turn.df * turn.variance for turn in turns) / total if total else 0.0


def _fit_df(turns: Sequence[TurnSummary], variance: float) -> float:
    """Return how many degrees of freedom the pooled variance is worth in a turn.

    Variances of a few futures are often exactly 0, so that they are compared in bins.
    """
    if variance <= _TINY or len(turns) < 2:
        return _SINGLE_DF
    from scipy.special import fdtr

    low = np.floor(np.array([turn.variance for turn in turns]) / variance / _BIN) * _BIN
    own = np.array([turn.df for turn in turns])
    fits = [
        np.log(np.maximum(fdtr(own, df, low + _BIN) - fdtr(own, df, low), _TINY)).sum()
        for df in _POOL_DF
    ]
    return _POOL_DF[int(np.argmax(fits))]


def _likelihoods(turns: Sequence[TurnSummary], prior: Prior) -> Array:
    """Return the likelihood of each ratio, up to a factor a turn; shape [turns, ratios].

    With ratio r, between / (1 + n r) is distributed as the variance of futures: F of both has
    (candidates - 1, df) degrees of freedom.
    """
    pooled = np.array([prior.pooled(turn) for turn in turns])  # [turns, (variance, df)]
    between = np.array([turn.between for turn in turns])
    inflation = 1 + np.outer([turn.futures for turn in turns], _RATIOS)
    observed = np.maximum(between / pooled[:, 0], _TINY)[:, None] / inflation
    num = np.array([[len(turn.means) - 1] for turn in turns])
    df = pooled[:, 1:]
    logs = (num / 2 - 1) * np.log(observed) - np.log(inflation)  # density of F
    logs -= (num + df) / 2 * np.log1p(num / df * observed)
    likelihoods: Array = np.exp(logs - logs.max(axis=1, keepdims=True))
    return likelihoods


@dataclass(frozen=True)
class Posterior:
    """What is known of a turn's candidates after all its futures.

    Positions count the candidates given, those without any reward included: their `scores` are
    None, and nothing is known of them.
    """

    scores: tuple[float | None, ...]
    """Shrunken mean rewards."""
    shrinkage: float
    """What is left of a difference of means, in [0, 1]."""
    _turn: TurnSummary | None
    _prior: Prior
    _weights: Array
    _positions: tuple[int, ...]

    @classmethod
    def of_turn(cls, rewards: Rewards, pool: "VariancePool | None" = None) -> "Posterior":
        """Find the posterior of a turn.

        Args:
            rewards: For each candidate the rewards of its futures, None where missing.
            pool: Pool of the dataset; without one, the turn stands alone and little is sure.
        """
        prior = (pool if pool is not None and pool.turns else VariancePool([rewards])).prior
        turn = summarize_turn(rewards)
        known = tuple(
            idx
            for idx, candidate in enumerate(rewards)
            if any(not math.isnan(finite(reward)) for reward in candidate)
        )
        scores: list[float | None] = [None] * len(rewards)
        if turn is None:
            for idx in known:
                scores[idx] = float(np.nanmean([finite(reward) for reward in rewards[idx]]))
            return cls(tuple(scores), 0.0, None, prior, prior.weights, known)
        weights = _likelihoods([turn], prior)[0] * prior.weights
        weights /= weights.sum()
        kept = _kept(turn)
        shrinkage = float((weights * kept).sum())
        grand = float((turn.counts * turn.means).sum() / turn.counts.sum())
        for idx, mean in zip(known, turn.means, strict=True):
            scores[idx] = grand + shrinkage * float(mean - grand)
        return cls(tuple(scores), shrinkage, turn, prior, weights, known)

    def best_and_worst(self) -> tuple[int, int]:
        """Return the positions of the highest and the lowest score; of equal ones the first."""
        known = [idx for idx, score in enumerate(self.scores) if score is not None]
        if not known:
            return 0, 0
        best = max(known, key=lambda idx: self.scores[idx] or 0.0)
        rest = [idx for idx in known if idx != best] or [best]
        return best, min(rest, key=lambda idx: self.scores[idx] or 0.0)

    def p_above(self, first: int, second: int) -> float:
        """Return the probability that the first candidate's true mean is the higher one.

        0.5 where nothing is known of one of them; candidates that may not differ at all count as
        half.
        """
        if self._turn is None or not {first, second} <= set(self._positions):
            return 0.5
        from scipy.special import stdtr

        turn = self._turn
        i, j = self._positions.index(first), self._positions.index(second)
        variance, df = self._prior.pooled(turn)
        num, kept = len(turn.means) - 1, _kept(turn)[1:]
        # The variance of futures, given the ratio, from the futures and from the candidates.
        total = df * variance + num * turn.between / (1 + turn.futures * _RATIOS[1:])
        scale = total / (df + num) * kept * (1 / turn.counts[i] + 1 / turn.counts[j])
        difference = kept * (turn.means[i] - turn.means[j])
        p = stdtr(df + num, difference / np.sqrt(scale))
        return float(0.5 * self._weights[0] + (self._weights[1:] * p).sum())


def _kept(turn: TurnSummary) -> Array:
    """Return, for each ratio, how much of a difference of means is kept."""
    kept: Array = turn.futures * _RATIOS / (1 + turn.futures * _RATIOS)
    return kept


def fit_posteriors(turns: Sequence[Rewards]) -> list[Posterior]:
    """Return the posterior of every turn of a dataset, each with the prior of them all."""
    pool = VariancePool(turns)
    return [Posterior.of_turn(turn, pool) for turn in turns]


def p_better(first: Sequence[float | None], second: Sequence[float | None]) -> float:
    """Return the probability that the first reply's mean reward is the higher one, in [0, 1].

    Of two replies alone, of which little is sure; ask a `Posterior` with the `VariancePool` of the
    dataset where there is one.

    Args:
        first: Rewards of one reply's futures, None where missing.
        second: Rewards of the other one's, in the same order of seeds.
    """
    return Posterior.of_turn([first, second]).p_above(0, 1)
