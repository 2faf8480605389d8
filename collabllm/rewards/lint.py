"""Look at a few rewards before a large run: can they teach anything, and what.

A reward teaches by its differences between the candidates of one turn. What differs between tasks
only is no lesson, so that everything here is taken within turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabllm.data_processing.confidence import VariancePool, pool_variance
from collabllm.rewards.multiturn import RewardEstimate
from collabllm.rewards.registry import needs_of
from collabllm.rewards.scoring import Future, RewardSettings

Turns = Sequence[Sequence[RewardEstimate]]
"""The candidates of each turn."""
Array = NDArray[np.float64]

_SATURATED_SHARE = 0.5
_DOMINANT_SHARE = 0.9
_LENGTH_CORRELATION = 0.7
_MISSING_SHARE = 0.1
_FLAT_SHARE = 0.5
_MIN_FUTURES = 6
_RELIABLE = 0.8  # share of the variance of mean rewards that candidates should make
_MAX_ADVISED = 50
_TINY = 1e-9


@dataclass(frozen=True)
class Lint:
    """Figures of a reward, all within turns, and the warnings that follow from them.

    `spread_shares` says what each term makes up of the reward's spread between candidates;
    `flat_share` is the share of turns in which all candidates are worth the same;
    `candidate_variance` and `future_variance` are those of single futures; `futures_needed` makes
    candidates 80% of the variance of mean rewards (None: more than any number would);
    `length_correlations` are those of judged metrics.
    """

    num_turns: int
    flat_share: float
    spread_shares: dict[str, float]
    candidate_variance: float
    future_variance: float
    futures_needed: int | None
    length_correlations: dict[str, float]
    warnings: list[str]

    def to_lines(self) -> list[str]:
        """Write the figures, then the warnings."""
        if not self.num_turns:
            return ["Too few futures to say anything."]
        needed = self.futures_needed or f"over {_MAX_ADVISED}"
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.spread_shares.items())
        return [
            f"{self.num_turns} turns; all candidates are worth the same in {self.flat_share:.0%}",
            f"spread within turns: {shares or 'none'}",
            f"variance of candidates {self.candidate_variance:.3g}, of futures "
            f"{self.future_variance:.3g}: {needed} futures make their order reliable",
            *(f"{name} and tokens: r = {r:+.2f}" for name, r in self.length_correlations.items()),
            *(f"WARNING: {warning}" for warning in self.warnings or ()),
        ]


def lint_rewards(turns: Turns, settings: RewardSettings) -> Lint:
    """Find what makes a reward useless, from the turns of about ten tasks.

    Args:
        turns: The estimates of each turn's candidates.
        settings: That made them.

    Returns:
        Figures, and warnings: a token penalty at its limit in over half of the futures; metrics
        that never differ within a turn; turns without any spread in over half; one term that makes
        up over 90% of the spread; more futures needed than there are; judged metrics that go with
        length (|r| > 0.7); metrics missing in over 10%. With fewer than 6 futures, none.
    """
    futures = [future for turn in turns for estimate in turn for future in estimate.futures]
    if len(futures) < _MIN_FUTURES:
        return Lint(0, 0.0, {}, 0.0, 0.0, None, {}, [])
    terms = _within_turns(turns, settings)
    spreads = {name: float(np.nanstd(values)) for name, values in terms.items() if values.size}
    total = sum(spread for spread in spreads.values() if np.isfinite(spread))
    shares = {name: spread / total for name, spread in spreads.items()} if total > _TINY else {}
    flat = _flat_share(turns)
    between, within, needed = _count_futures_needed(turns)
    lengths = _length_correlations(turns, settings)
    warnings = [
        *_find_saturation(futures, settings),
        *_find_constants(terms, settings),
        *_find_flat(flat),
        *_find_dominance(shares),
        *_find_noise(needed, settings),
        *_find_length_bias(lengths),
        *_find_missing(futures, settings),
        *_find_tampered(futures),
    ]
    return Lint(len(turns), flat, shares, between, within, needed, lengths, warnings)


def _within_turns(turns: Turns, settings: RewardSettings) -> dict[str, Array]:
    """Return, for each term of the reward, what candidates differ by from the mean of their turn.

    Candidates count by the mean of their futures, times the term's weight.
    """
    terms: dict[str, list[float]] = {name: [] for name in settings.weights}
    if settings.token_penalty:
        terms["the token penalty"] = []
    for turn in turns:
        for name, found in terms.items():
            values = np.array([_term(estimate, name, settings) for estimate in turn])
            known = values[~np.isnan(values)]
            if len(known) > 1:
                found.extend(known - known.mean())
    return {name: np.array(values) for name, values in terms.items()}


def _term(estimate: RewardEstimate, name: str, settings: RewardSettings) -> float:
    if name in settings.weights:
        value = estimate.means.get(name)
        return settings.weights[name] * value if value is not None else np.nan
    costs = [min(settings.token_penalty * f.num_tokens, 1.0) for f in estimate.futures]
    return -float(np.mean(costs)) if costs else np.nan


def _flat_share(turns: Turns) -> float:
    """Return the share of turns whose candidates have all the same reward."""
    several = [[e.value for e in turn if e.value is not None] for turn in turns]
    several = [values for values in several if len(values) > 1]
    return float(np.mean([np.ptp(values) < _TINY for values in several])) if several else 0.0


def _count_futures_needed(turns: Turns) -> tuple[float, float, int | None]:
    """Return the variance of candidates and of futures, and the futures that make them tell."""
    pool = VariancePool([estimate.rewards for estimate in turn] for turn in turns)
    if not pool.turns:
        return 0.0, 0.0, None
    within = pool_variance(pool.turns)
    # The mean square between candidates is that of futures, plus n times theirs.
    excess = [(turn.between - within) / turn.futures for turn in pool.turns]
    between = max(float(np.mean(excess)), 0.0)
    if within < _TINY:
        return between, within, 1
    needed = np.ceil(_RELIABLE / (1 - _RELIABLE) * within / between) if between > _TINY else np.inf
    return between, within, int(needed) if needed <= _MAX_ADVISED else None


def _length_correlations(turns: Turns, settings: RewardSettings) -> dict[str, float]:
    """Return the correlation of each judged metric with tokens, within turns."""
    found = {}
    for name in (name for name in settings.weights if "judge" in needs_of(name)):
        pairs: list[Array] = []
        for turn in turns:
            futures = [future for estimate in turn for future in estimate.futures]
            rows = [(f.metrics[name].value, f.num_tokens) for f in futures]
            known = np.array([row for row in rows if row[0] is not None], dtype=float)
            if len(known) > 1:
                pairs.append(known - known.mean(axis=0, keepdims=True))
        table = np.concatenate(pairs) if pairs else np.zeros((0, 2))
        if len(table) >= _MIN_FUTURES and (table.std(axis=0) > _TINY).all():
            found[name] = float(np.corrcoef(table[:, 0], table[:, 1])[0, 1])
    return found


def _find_saturation(futures: Sequence[Future], settings: RewardSettings) -> list[str]:
    tokens = np.array([future.num_tokens for future in futures], dtype=float)
    share = float((settings.token_penalty * tokens >= 1).mean())
    if share <= _SATURATED_SHARE:
        return []
    fitting = 1 / max(float(np.quantile(tokens, 0.95)), 1.0)
    return [
        f"token_penalty {settings.token_penalty:g} is at its limit of 1 in {share:.0%} of the "
        f"futures and no longer tells long from short; {fitting:.1g} keeps 95% of them below it."
    ]


def _find_constants(terms: dict[str, Array], settings: RewardSettings) -> list[str]:
    return [
        f"{name} is the same for all candidates of every turn: it cannot tell them apart."
        for name, values in terms.items()
        if values.size and settings.weights.get(name, 1.0) and np.abs(values).max() < _TINY
    ]


def _find_flat(flat_share: float) -> list[str]:
    if flat_share <= _FLAT_SHARE:
        return []
    return [f"in {flat_share:.0%} of the turns candidates are worth the same: nothing to learn."]


def _find_dominance(shares: dict[str, float]) -> list[str]:
    if len(shares) < 2:
        return []
    name = max(shares, key=lambda name: shares[name])
    if shares[name] <= _DOMINANT_SHARE:
        return []
    return [
        f"{name} makes up {shares[name]:.0%} of the spread between candidates; the other terms "
        "hardly count."
    ]


def _find_noise(needed: int | None, settings: RewardSettings) -> list[str]:
    if needed is None:
        return [
            f"futures differ so much more than candidates that {_MAX_ADVISED} of them would not "
            "tell candidates apart; give the reward more that candidates decide."
        ]
    if needed <= settings.num_futures:
        return []
    return [
        f"{settings.num_futures} futures per reply are too few for the noise: "
        f"--num_samples {needed}."
    ]


def _find_length_bias(correlations: dict[str, float]) -> list[str]:
    return [
        f"{name} goes with the number of tokens (r = {r:+.2f})."
        for name, r in correlations.items()
        if abs(r) > _LENGTH_CORRELATION
    ]


def _find_missing(futures: Sequence[Future], settings: RewardSettings) -> list[str]:
    found = []
    for name in settings.weights:
        values = [future.metrics[name] for future in futures if future.metrics[name].applicable]
        share = sum(value.value is None for value in values) / max(len(values), 1)
        if share > _MISSING_SHARE:
            reason = next(value.reason for value in values if value.value is None)
            found.append(f"{name} is missing in {share:.0%} of the futures ({reason}).")
    return found


def _find_tampered(futures: Sequence[Future]) -> list[str]:
    number = sum(value.is_tampered for future in futures for value in future.metrics.values())
    return [f"{number} values are 0 because a reply tampered with the metric."] * bool(number)
