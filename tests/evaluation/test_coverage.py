"""Statistics against simulated evaluations of known truth; docs/evaluation.md has longer runs."""

import random

import numpy as np
import pytest

from benchmarks.evaluation_statistics import (
    RATES,
    cover_difference,
    cover_mean,
    cover_seeds,
    cover_unbounded,
    false_findings,
)
from collabllm.evaluation.statistics import mean_interval
from tests.evaluation.test_results import analysed, make_plan, scores_of

RUNS = 1000
NOISE = 0.018  # of a share of 95% in so many runs: two and a half standard errors


@pytest.mark.parametrize("num_tasks", [6, 10, 28, 60, 200])
@pytest.mark.parametrize("num_rollouts", [1, 3, 5])
def test_intervals_of_rates_cover_the_truth(num_tasks, num_rollouts):
    found = [cover_mean(rate, num_tasks, num_rollouts, 1, RUNS) for rate in RATES]

    # Of few rare events every interval covers too seldom or too often: this one is never too short.
    assert min(found) >= 0.93 - NOISE
    assert np.mean(found) <= (0.97 if num_tasks > 10 else 0.99) + NOISE
    if num_tasks >= 60:
        assert max(found[2:]) <= 0.97 + NOISE


@pytest.mark.parametrize("num_tasks", [28, 60, 200])
@pytest.mark.parametrize("num_rollouts", [1, 3, 5])
def test_intervals_of_rates_cover_the_truth_where_tasks_come_in_clusters(num_tasks, num_rollouts):
    found = [cover_mean(rate, num_tasks, num_rollouts, 4, RUNS) for rate in RATES]

    assert min(found) >= 0.93 - NOISE
    assert found[-1] <= 0.97 + NOISE


@pytest.mark.parametrize("cluster_size", [1, 4])
@pytest.mark.parametrize("num_rollouts", [1, 3, 5])
def test_intervals_of_differences_cover_the_truth(num_rollouts, cluster_size):
    for num_tasks in (28, 60, 200) if cluster_size > 1 else (6, 10, 28, 60, 200):
        found = [
            cover_difference(rate, difference, num_tasks, num_rollouts, cluster_size, RUNS)
            for rate, difference in ((0.05, 0.0), (0.2, 0.15), (0.35, 0.0))
        ]

        assert min(found) >= 0.93 - NOISE
        if num_tasks >= 60:
            assert found[-1] <= 0.97 + NOISE


def test_intervals_of_graded_differences_cover_the_truth():
    for num_tasks in (6, 10, 28, 200):
        for rollouts, parts in ((1, 3), (5, 1)):
            found = cover_difference(0.35, 0.15, num_tasks, rollouts, 1, RUNS, parts=parts)
            assert 0.93 - NOISE <= found <= 0.97 + NOISE


@pytest.mark.parametrize("kind", ["normal", "gamma", "gamma difference"])
@pytest.mark.parametrize("num_tasks", [6, 28, 200])
def test_intervals_of_tokens_cover_the_truth(kind, num_tasks):
    assert 0.93 - NOISE <= cover_unbounded(kind, num_tasks, RUNS) <= 0.97 + NOISE


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])
def test_intervals_over_trainings_cover_the_effect_of_the_recipe(num_seeds, spread):
    for num_tasks in (12, 60):
        assert 0.93 - NOISE <= cover_seeds(num_tasks, num_seeds, spread, RUNS) <= 0.98 + NOISE


def test_an_interval_that_takes_clusters_for_independent_tasks_would_not_cover():
    """The simulation finds the fault that it is for: 28 tasks of 7 domains, taken for 28."""
    generator = np.random.default_rng(0)
    centers = np.repeat(generator.beta(0.8, 0.8, (RUNS, 7)), 4, axis=1)
    values = generator.binomial(5, centers)[..., None] / 5

    low, high = mean_interval(values, np.arange(28), bounded=True)

    assert ((low <= 0.5) & (high >= 0.5)).mean() < 0.85


@pytest.mark.parametrize(
    ("arms", "users", "openings", "runs"),
    [(2, 1, 1, 300), (2, 3, 1, 150), (3, 1, 4, 100), (3, 2, 2, 100), (4, 3, 4, 40)],
)
def test_equal_arms_are_told_apart_in_at_most_6_of_100_evaluations(arms, users, openings, runs):
    assert false_findings(arms, users, openings, runs) <= 0.06


def test_equal_arms_are_not_told_apart_where_tasks_are_many_or_in_clusters():
    assert false_findings(2, 1, 2, 100, num_tasks=28) <= 0.06
    assert false_findings(2, 1, 2, 100, num_tasks=28, cluster_size=4) <= 0.06


def test_whole_evaluations_of_equal_arms_find_nothing():
    random_ = random.Random(5)
    plan = make_plan(arms=("base", "sft", "other"), users=("u", "v"))
    num_found = 0
    for _ in range(12):
        scores = scores_of(plan, lambda *_: random_.randint(0, 3) / 3)
        verdicts = {d.verdict for d in analysed(plan, scores).differences}
        num_found += verdicts != {"cannot tell"}

    assert num_found <= 1
