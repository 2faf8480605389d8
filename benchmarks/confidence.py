"""How often the best reply of a turn is found, and how many pairs are sure: budget or more futures.

uv run python benchmarks/confidence.py

Simulated turns of 4 candidates with known true rewards (standard deviation 0.7 between candidates,
1 between futures). Fixed: 4 or 5 futures each. Adaptive: 3 each and up to 8 more, spent on the
present best and worst until their order is sure at 95%.
"""

import numpy as np

from collabllm.data_processing.confidence import Posterior, VariancePool

_TURNS, _CANDIDATES, _SPREAD = 1000, 4, 0.7
_FIXED, _FIRST, _BUDGET, _SURE = (4, 5), 3, 8, 0.95
_LEVEL = 0.9


def draw(rng: np.random.Generator, true: np.ndarray, futures: int) -> list[list[float]]:
    """Draw rewards of futures, shape [candidates, futures]."""
    rewards: list[list[float]] = rng.normal(true[:, None], 1, (len(true), futures)).tolist()
    return rewards


def spend(rng: np.random.Generator, true: np.ndarray, pool: VariancePool) -> list[list[float]]:
    """Draw the first futures, then spend the budget on the best and the worst."""
    rewards = draw(rng, true, _FIRST)
    for _ in range(_BUDGET // 2):
        posterior = Posterior.of_turn(rewards, pool)
        pair = posterior.best_and_worst()
        if posterior.p_above(*pair) >= _SURE:
            break
        for idx in pair:
            rewards[idx].append(float(rng.normal(true[idx], 1)))
    return rewards


def main() -> None:
    """Print both allocations, with real differences and without any."""
    print(
        "| truth | allocation | futures a turn | pairs sure at 0.9 | of these right | best found |"
    )
    print("|---|---|---|---|---|---|")
    for name, spread in (("candidates differ", _SPREAD), ("all equal", 0.0)):
        rng = np.random.default_rng(0)
        truths = [rng.normal(0, spread, _CANDIDATES) for _ in range(_TURNS)]
        pool = VariancePool(draw(rng, true, _FIRST) for true in truths)
        for futures in (*_FIXED, None):
            allocation = f"{futures} each" if futures else "adaptive"
            turns = [
                draw(rng, true, futures) if futures else spend(rng, true, pool) for true in truths
            ]
            pool_of_run = VariancePool(turns)
            posteriors = [Posterior.of_turn(turn, pool_of_run) for turn in turns]
            pairs = [posterior.best_and_worst() for posterior in posteriors]
            sure = np.array(
                [q.p_above(*p) >= _LEVEL for q, p in zip(posteriors, pairs, strict=True)]
            )
            right = np.array([t[p[0]] > t[p[1]] for t, p in zip(truths, pairs, strict=True)])
            best = np.mean([p[0] == t.argmax() for t, p in zip(truths, pairs, strict=True)])
            cost = np.mean([sum(map(len, turn)) for turn in turns])
            shown = f"{right[sure].mean():.2f}" if sure.any() and spread else "-"
            found = f"{best:.2f}" if spread else "-"
            print(f"| {name} | {allocation} | {cost:.1f} | {sure.mean():.2f} | {shown} | {found} |")


if __name__ == "__main__":
    main()
