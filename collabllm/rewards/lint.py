"""Look at a few rewards before a large run: can they teach anything, and what."""

from collections.abc import Iterable, Sequence

import numpy as np

from collabllm.rewards.multiturn import Future, RewardEstimate, RewardSettings

_SATURATED_SHARE = 0.5
_DOMINANT_SHARE = 0.9
_LENGTH_CORRELATION = 0.7
_MISSING_SHARE = 0.1
_MIN_FUTURES = 6
_JUDGED = ("interactivity", "accuracy_judged")


def lint_rewards(estimates: Iterable[RewardEstimate], settings: RewardSettings) -> list[str]:
    """Find what makes a reward useless, from the candidates of about ten tasks.

    Args:
        estimates: Of all candidates, in any order.
        settings: That made them.

    Returns:
        Warnings: a token penalty that is at its limit of 1 in over half of the futures, metrics
        that never vary, one term that makes up over 90% of the reward's spread, a judge's scores
        that go with length (|r| > 0.7), metrics that are missing in over 10%. None with fewer than
        6 futures.
    """
    futures = [future for estimate in estimates for future in estimate.futures]
    if len(futures) < _MIN_FUTURES:
        return []
    terms = {name: _column(futures, name) for name in settings.weights}
    tokens = np.array([future.num_tokens for future in futures], dtype=float)
    return [
        *_find_saturation(tokens, settings),
        *_find_constants(terms),
        *_find_dominance(terms, tokens, settings),
        *_find_length_bias(terms, tokens),
        *_find_missing(futures, settings),
    ]


def _column(futures: Sequence[Future], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = [future.metrics[name].value for future in futures]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _find_saturation(tokens: np.ndarray, settings: RewardSettings) -> list[str]:
    share = float((settings.token_penalty * tokens >= 1).mean())
    if share <= _SATURATED_SHARE:
        return []
    fitting = 1 / max(float(np.quantile(tokens, 0.95)), 1.0)
    return [
        f"token_penalty {settings.token_penalty:g} is at its limit of 1 in {share:.0%} of the "
        f"futures and no longer tells long from short; {fitting:.1g} keeps 95% of them below it."
    ]


def _find_constants(terms: dict[str, np.ndarray]) -> list[str]:
    return [
        f"{name} is {known[0]:g} in all {len(known)} futures: it cannot tell candidates apart."
        for name, values in terms.items()
        if len(known := values[~np.isnan(values)]) > 1 and np.ptp(known) == 0
    ]


def _find_dominance(
    terms: dict[str, np.ndarray], tokens: np.ndarray, settings: RewardSettings
) -> list[str]:
    spreads = {
        name: abs(settings.weights[name]) * float(np.nanstd(values))
        for name, values in terms.items()
        if not np.isnan(values).all()
    }
    spreads["the token penalty"] = float(np.std(np.minimum(settings.token_penalty * tokens, 1)))
    total = sum(spreads.values())
    wanted = len(settings.weights) + (settings.token_penalty > 0)
    if not total or wanted < 2:
        return []
    name = max(spreads, key=lambda name: spreads[name])
    share = spreads[name] / total
    if share <= _DOMINANT_SHARE:
        return []
    return [f"{name} makes up {share:.0%} of the reward's spread; the other terms hardly count."]


def _find_length_bias(terms: dict[str, np.ndarray], tokens: np.ndarray) -> list[str]:
    found = []
    for name, values in terms.items():
        known = ~np.isnan(values)
        if name not in _JUDGED or known.sum() < _MIN_FUTURES:
            continue
        if np.ptp(values[known]) and np.ptp(tokens[known]):
            r = float(np.corrcoef(values[known], tokens[known])[0, 1])
            if abs(r) > _LENGTH_CORRELATION:
                found.append(f"{name} goes with the number of tokens (r = {r:+.2f}).")
    return found


def _find_missing(futures: Sequence[Future], settings: RewardSettings) -> list[str]:
    found = []
    for name in settings.weights:
        values = [future.metrics[name] for future in futures if future.metrics[name].applicable]
        share = sum(value.value is None for value in values) / max(len(values), 1)
        if share > _MISSING_SHARE:
            reason = next(value.reason for value in values if value.value is None)
            found.append(f"{name} is missing in {share:.0%} of the futures ({reason}).")
    return found
