"""The lint speaks of differences within turns, and of what they cost to see."""

import pytest

from collabllm.rewards import (
    Future,
    MetricValue,
    RewardEstimate,
    RewardSettings,
    lint_rewards,
    register_metric,
)
from collabllm.simulation import TerminationReason


@pytest.fixture(autouse=True)
def own_metrics():
    async def metric(conversation, task, tools):
        return 0.0

    register_metric("m", metric, highest=None)
    register_metric("n", metric, highest=None)


def future(reward=0.0, tokens=10, **metrics):
    values = {name: MetricValue(value) for name, value in metrics.items()}
    return Future([], TerminationReason.MAX_TURNS, values, tokens, reward, 0)


def turn(*candidates):
    """Make a turn of candidates with one future each."""
    return [RewardEstimate(f"r{i}", [f]) for i, f in enumerate(candidates)]


def lint(turns, **settings):
    return lint_rewards(turns, RewardSettings(**settings))


def test_a_metric_that_differs_only_between_tasks_makes_no_spread():
    turns = [turn(future(m=t, n=0.0), future(m=t, n=0.1)) for t in (0.0, 1.0, 5.0)]

    found = lint(turns, weights={"m": 1.0, "n": 1.0})

    assert found.spread_shares == {"m": 0.0, "n": 1.0}
    assert any("m is the same for all candidates of every turn" in w for w in found.warnings)
    assert not any("m makes up" in w for w in found.warnings)


def test_a_term_that_makes_up_nearly_all_of_the_spread_is_named():
    even = [turn(future(m=0, n=0), future(m=1, n=1)), turn(future(m=0, n=1), future(m=1, n=0))]
    alike = [*even, *even]

    assert not any("makes up" in w for w in lint(alike, weights={"m": 1.0, "n": 1.0}).warnings)
    assert any("m makes up 99%" in w for w in lint(alike, weights={"m": 99.0, "n": 1.0}).warnings)


def test_turns_without_any_spread_are_counted():
    flat = turn(future(0.5, m=1), future(0.5, m=1))
    useful = turn(future(0.5, m=1), future(0.7, m=2))

    found = lint([flat, flat, useful], weights={"m": 1.0})

    assert found.flat_share == pytest.approx(2 / 3)
    assert any("in 67% of the turns" in w for w in found.warnings)
    assert lint([useful] * 3, weights={"m": 1.0}).flat_share == 0.0


def noisy(means, noise):
    signs = (1, -1, 1, -1)
    return [
        RewardEstimate(
            f"r{i}", [future(mean + sign * noise * (1 if i else -1), m=mean) for sign in signs]
        )
        for i, mean in enumerate(means)
    ]


def test_the_lint_says_how_many_futures_are_needed():
    # Residuals +-1 against each other: variance 8 / 3 within; candidates +-3: 18 - 2/3 between.
    found = lint([noisy((0.0, 6.0), 1.0)] * 5, weights={"m": 1.0}, num_samples=4)

    assert found.future_variance == pytest.approx(8 / 3)
    assert found.candidate_variance == pytest.approx(18 - 2 / 3)
    assert found.futures_needed == 1
    weak = lint([noisy((0.0, 2.0), 1.0)] * 5, weights={"m": 1.0}, num_samples=4)
    # (2 - 2/3) between: 4 x (8/3) / (4/3) = 8.
    assert weak.futures_needed == 8
    assert any("--num_samples 8" in w for w in weak.warnings)
    hopeless = lint([noisy((0.0, 0.0), 1.0)] * 5, weights={"m": 1.0})
    assert hopeless.futures_needed is None
    assert any("futures differ so much more" in w for w in hopeless.warnings)


def test_a_saturated_penalty_a_judge_of_length_and_missing_values_are_found():
    long = [turn(*(future(m=i % 2, tokens=3000 + i) for i in range(8)))]
    (saturated, *_) = lint(long, weights={"m": 1.0}, token_penalty=5e-4).warnings
    assert "limit of 1 in 100% of the futures" in saturated
    assert "0.0003 keeps 95%" in saturated

    longer_wins = [turn(*(future(interactivity=i / 8, tokens=10 * i) for i in range(8)))] * 2
    judged = lint(longer_wins, weights={"interactivity": 1.0})
    assert judged.length_correlations["interactivity"] == pytest.approx(1.0)
    assert any("goes with the number of tokens" in w for w in judged.warnings)

    missing = [turn(*(future(m=None if i < 2 else i) for i in range(8)))]
    assert any("m is missing in 25%" in w for w in lint(missing, weights={"m": 1.0}).warnings)


def test_length_between_tasks_is_no_bias():
    turns = [
        turn(future(interactivity=t, tokens=100 * t), future(interactivity=t, tokens=100 * t + 1))
        for t in (0, 1, 2, 3)
    ]

    assert lint(turns, weights={"interactivity": 1.0}).length_correlations == {}
