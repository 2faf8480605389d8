"""Confidence by simulation with known truth: noise passes rarely, real differences pass often."""

import math

import numpy as np
import pytest

from collabllm.data_processing.confidence import (
    Posterior,
    VariancePool,
    fit_posteriors,
    p_better,
)
from collabllm.data_processing.turn_summary import summarize_turn

LEVELS = (0.6, 0.7, 0.8, 0.9, 0.95)
NUM_SIMULATIONS = 2000


def draw_turns(kind, num_candidates, num_futures, *, effect=0.0, share=1.0, num=NUM_SIMULATIONS):
    """Draw turns; in a `share` of them the candidates' true means differ by `effect`."""
    rng = np.random.default_rng(10 * num_candidates + num_futures)
    turns, truths = [], []
    for _ in range(num):
        differ = rng.random() < share
        true = rng.normal(0, effect, num_candidates) if differ else np.zeros(num_candidates)
        shape = (num_candidates, num_futures)
        if kind == "binary":
            true = np.clip(rng.uniform(0.1, 0.9) + true, 0, 1)
            rewards = (rng.random(shape) < true[:, None]).astype(float)
        else:
            # What a future's seed adds to all candidates is shared.
            rewards = true[:, None] + rng.normal(0, 0.5, num_futures) + rng.normal(0, 1, shape)
        turns.append(rewards.tolist())
        truths.append(true)
    return turns, truths


def best_pairs(turns):
    """Return, for each turn, its best and worst candidate and P(best is above worst)."""
    found = []
    for posterior in fit_posteriors(turns):
        best, worst = posterior.best_and_worst()
        found.append((best, worst, posterior.p_above(best, worst)))
    return found


@pytest.mark.parametrize("kind", ["binary", "continuous"])
@pytest.mark.parametrize(("num_candidates", "num_futures"), [(3, 3), (5, 3), (8, 2)])
def test_of_equal_candidates_at_most_one_minus_c_pass_at_confidence_c(
    kind, num_candidates, num_futures
):
    turns, _ = draw_turns(kind, num_candidates, num_futures)

    p = np.array([pair[2] for pair in best_pairs(turns)])

    for level in LEVELS:
        assert (p >= level).mean() <= 1 - level


def draw_odd_turns(kind, num=NUM_SIMULATIONS):
    """Draw turns of five equal candidates whose rewards are nothing like what the model assumes."""
    rng = np.random.default_rng(7)
    shape = (num, 5, 3)
    if kind == "binary, in most turns always 0":
        chance = np.where(rng.random((num, 1, 1)) < 0.7, 0.0, rng.uniform(0, 1, (num, 1, 1)))
        return (rng.random(shape) < chance).astype(float).tolist()
    if kind == "heavy tails":
        return rng.standard_t(2, shape).tolist()
    spread = np.exp(rng.normal(0, 1.5, (num, 5, 1) if "candidate" in kind else (num, 1, 1)))
    rewards = rng.normal(0, 1, shape) * spread
    if "missing" in kind:
        rewards[rng.random(shape) < 0.3] = math.nan
    return rewards.tolist()


@pytest.mark.parametrize(
    "kind",
    [
        "binary, in most turns always 0",
        "heavy tails",
        "a spread for each candidate",
        "a spread for each turn, and a third missing",
    ],
)
def test_also_of_equal_candidates_of_an_odd_kind_at_most_one_minus_c_pass(kind):
    p = np.array([pair[2] for pair in best_pairs(draw_odd_turns(kind))])

    for level in LEVELS:
        assert (p >= level).mean() <= 1 - level


@pytest.mark.parametrize("num_turns", [1, 2, 5])
def test_also_in_a_dataset_of_few_turns_at_most_one_minus_c_pass_from_a_confidence_of_07(num_turns):
    turns, _ = draw_turns("continuous", 4, 3, num=1000)
    datasets = [turns[start : start + num_turns] for start in range(0, 1000, num_turns)]

    p = np.array([pair[2] for dataset in datasets for pair in best_pairs(dataset)])

    for level in (0.7, 0.8, 0.9, 0.95):
        assert (p >= level).mean() <= 1 - level


def test_of_equal_candidates_among_others_at_most_one_minus_c_pass():
    turns, truths = draw_turns("continuous", 4, 3, effect=1.0, share=0.3)

    p = np.array([pair[2] for pair in best_pairs(turns)])

    null = np.array([not true.any() for true in truths])
    for level in (0.8, 0.9, 0.95):
        assert (p[null] >= level).mean() <= 1 - level


def test_what_passes_is_as_often_right_as_it_says_and_real_differences_pass():
    turns, truths = draw_turns("continuous", 4, 3, effect=1.0)

    pairs = best_pairs(turns)

    sure = [idx for idx, (_, _, p) in enumerate(pairs) if p >= 0.9]
    right = [truths[idx][pairs[idx][0]] > truths[idx][pairs[idx][1]] for idx in sure]
    assert len(sure) > 0.5 * NUM_SIMULATIONS
    assert np.mean(right) > 0.95
    means = np.mean([p for _, _, p in pairs])
    truly = np.mean([t[best] > t[worst] for t, (best, worst, _) in zip(truths, pairs, strict=True)])
    assert means == pytest.approx(truly, abs=0.03)


def test_scores_are_shrunken_so_that_the_best_is_not_too_good():
    """The mean of the best candidate's futures is above its true mean: the winner's curse."""
    turns, truths = draw_turns("continuous", 5, 3, effect=0.7, num=500)

    raw, shrunken = [], []
    for turn, true, posterior in zip(turns, truths, fit_posteriors(turns), strict=True):
        best, _ = posterior.best_and_worst()
        level = np.mean(turn) - np.mean(true)  # what the seeds add to all
        raw.append(np.mean(turn[best]) - level - true[best])
        shrunken.append(posterior.scores[best] - level - true[best])

    assert np.mean(raw) > 0.25
    assert abs(np.mean(shrunken)) < 0.12


def spend(rng, true, pool, budget, *, adaptive):
    """Draw 3 futures each, then spend a budget on the best and the worst, or on all alike."""
    rewards = [list(rng.normal(mean, 1, 3)) for mean in true]
    if not adaptive:
        extra = budget // len(true)
        return [r + list(rng.normal(mean, 1, extra)) for r, mean in zip(rewards, true, strict=True)]
    while budget >= 2:
        posterior = Posterior.of_turn(rewards, pool)
        best, worst = posterior.best_and_worst()
        if posterior.p_above(best, worst) >= 0.95:
            break
        for idx in (best, worst):
            rewards[idx].append(float(rng.normal(true[idx], 1)))
        budget -= 2
    return rewards


def test_more_budget_makes_noise_no_surer():
    rng = np.random.default_rng(1)
    pool = VariancePool(rng.normal(0, 1, (300, 4, 3)).tolist())
    passed = {
        budget: np.mean(
            [
                posterior.p_above(*posterior.best_and_worst()) >= 0.9
                for _ in range(300)
                for posterior in [
                    Posterior.of_turn(spend(rng, np.zeros(4), pool, budget, adaptive=True), pool)
                ]
            ]
        )
        for budget in (0, 12)
    }

    assert passed[0] <= 0.1
    assert passed[12] <= 0.1


def test_two_equal_binary_futures_are_no_certainty():
    assert p_better([1, 1], [0, 0]) < 0.9
    assert p_better([1, 1], [1, 1]) == 0.5
    assert p_better([9], [0]) < 0.9
    assert p_better([0, 0], [1, 1]) == pytest.approx(1 - p_better([1, 1], [0, 0]))


def test_many_futures_of_a_clear_difference_are_nearly_one():
    rng = np.random.default_rng(0)
    high, low = rng.normal(3, 1, 12), rng.normal(0, 1, 12)

    assert p_better(list(high), list(low)) > 0.97


def test_missing_nan_and_infinite_rewards_are_left_out():
    full = summarize_turn([[1.0, 3.0], [0.0, 1.0]])
    holes = summarize_turn([[1.0, None, 3.0], [0.0, math.nan, 1.0], [None, math.inf, math.nan]])

    assert holes is not None
    assert full is not None
    assert list(holes.means) == list(full.means)
    assert (holes.variance, holes.df) == (full.variance, full.df)
    posterior = Posterior.of_turn([[1.0, 2.0], [None, None], [0.0, 0.5]])
    assert posterior.scores[1] is None
    assert posterior.p_above(0, 1) == 0.5
    assert posterior.best_and_worst() == (0, 2)


def test_turns_of_one_or_no_candidate_say_nothing():
    assert summarize_turn([]) is None
    assert summarize_turn([[1.0, 2.0]]) is None
    assert Posterior.of_turn([[1.0, 3.0]]).scores == (2.0,)
    assert Posterior.of_turn([]).best_and_worst() == (0, 0)
    assert VariancePool([[[1.0]], []]).turns == []


def test_a_dataset_without_noise_is_sure_of_real_differences():
    turns = [[[1.0, 1.0], [0.0, 0.0]]] * 30

    assert all(posterior.p_above(0, 1) > 0.95 for posterior in fit_posteriors(turns))
