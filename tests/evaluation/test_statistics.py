"""Statistics against examples worked out by hand and against simulated data with known truth."""

import numpy as np
import pytest

from collabllm.evaluation.statistics import (
    bootstrap_interval,
    compare,
    estimate,
    holm,
    mcnemar,
    noise_floor,
    sign_permutation,
    tasks_needed,
)


def one_each(values):
    return {f"t{i}": [value] for i, value in enumerate(values)}


def test_a_mean_weighs_tasks_and_not_rollouts():
    result = estimate({"a": [1.0, 1.0, 1.0], "b": [0.0]})

    assert result.mean == 0.5
    assert (result.num_tasks, result.num_values) == (2, 4)


def test_the_permutation_p_value_of_small_samples_is_exact():
    # Of 2 ** 3 = 8 sign patterns of (1, 2, 3) two reach a sum of 6 or -6.
    assert sign_permutation(np.array([1.0, 2.0, 3.0])) == 0.25
    # (1, 1, -1): sums 3, 1 (x3), -1 (x3), -3: all reach |1|.
    assert sign_permutation(np.array([1.0, 1.0, -1.0])) == 1.0
    assert sign_permutation(np.zeros(5)) == 1.0
    many = np.full(20, 0.3)
    assert sign_permutation(many) < 0.001


def test_mcnemar_is_the_binomial_test_of_the_discordant_tasks():
    # 5 wins, 0 losses: 2 / 2 ** 5. 3 wins, 1 loss: (1 + 4) * 2 / 16.
    assert mcnemar(np.array([1.0] * 5 + [0.0] * 9)) == pytest.approx(0.0625)
    assert mcnemar(np.array([1.0, 1.0, 1.0, -1.0])) == pytest.approx(0.625)
    assert mcnemar(np.zeros(4)) == 1.0


def test_binary_metrics_get_mcnemar_and_others_a_permutation_test():
    binary = compare(one_each([1.0, 1.0, 0.0]), one_each([0.0, 1.0, 0.0]))
    graded = compare(one_each([0.9, 1.0, 0.5]), one_each([0.0, 1.0, 0.0]))
    repeated = compare({"a": [1.0, 0.0]}, {"a": [0.0, 0.0]})

    assert (binary.test, graded.test, repeated.test) == ("McNemar", "permutation", "permutation")
    assert binary.mean == pytest.approx(1 / 3)
    assert repeated.mean == 0.5


def test_only_tasks_that_both_arms_have_are_compared():
    first = {"a": [1.0], "b": [0.5], "c": []}
    second = {"a": [0.0], "c": [1.0], "d": [1.0]}

    assert compare(first, second).num_tasks == 1
    with pytest.raises(ValueError, match="share no task"):
        compare({"a": [1.0]}, {"b": [1.0]})


def test_the_number_of_tasks_needed_is_that_of_the_z_test():
    # Mean 0.5, standard deviation 1: ((1.959964 + 0.841621) * 1 / 0.5) ** 2 = 31.4.
    differences = np.array([1.5, -0.5, 1.5, -0.5]) * 1.0
    scaled = 0.5 + (differences - 0.5) / differences.std(ddof=1)

    assert tasks_needed(scaled) == 32
    assert tasks_needed(np.zeros(9)) is None


def test_the_noise_floor_is_the_standard_error_of_whole_repeats():
    # Variances 0.5 and 0, mean 0.25; two tasks: sqrt(0.25 / 2).
    assert noise_floor({"a": [0.0, 1.0], "b": [1.0, 1.0]}) == pytest.approx(0.3536, abs=1e-4)
    assert noise_floor({"a": [1.0], "b": [0.0]}) is None


def test_holm_multiplies_step_by_step_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_constant_sample_has_an_interval_of_its_value():
    assert bootstrap_interval(np.array([0.5, 0.5, 0.5])) == (0.5, 0.5)
    assert bootstrap_interval(np.array([0.5])) == (0.5, 0.5)


@pytest.mark.parametrize("kind", ["normal", "binary", "skewed"])
def test_95_percent_intervals_cover_the_truth_in_92_to_98_percent(kind):
    """1,000 evaluations of 30 tasks with 3 rollouts each, whose true mean is known."""
    generator = np.random.default_rng(7)
    covered = 0
    for seed in range(1000):
        if kind == "normal":
            tasks, truth = generator.normal(0.4, 1.0, 30), 0.4
            values = tasks[:, None] + generator.normal(0, 0.5, (30, 3))
        elif kind == "binary":
            rates, truth = generator.beta(2, 3, 30), 0.4
            values = (generator.random((30, 3)) < rates[:, None]).astype(float)
        else:
            values, truth = generator.gamma(2.0, 0.5, (30, 3)), 1.0
        result = estimate({str(i): list(row) for i, row in enumerate(values)}, seed)
        covered += result.low <= truth <= result.high

    assert 920 <= covered <= 980


def test_paired_intervals_cover_the_true_difference():
    generator = np.random.default_rng(11)
    covered = 0
    for seed in range(1000):
        task = generator.normal(0, 2.0, 25)  # tasks differ far more than arms do
        first = {str(i): [v + 0.3 + generator.normal(0, 0.6)] for i, v in enumerate(task)}
        second = {str(i): [v + generator.normal(0, 0.6)] for i, v in enumerate(task)}
        result = compare(first, second, seed)
        covered += result.low <= 0.3 <= result.high

    assert 920 <= covered <= 980


def test_two_identical_arms_are_told_apart_in_at_most_7_of_100_seeds():
    generator = np.random.default_rng(3)
    found = 0
    for seed in range(100):
        rates = generator.beta(1, 2, 28)
        arms = [
            {str(i): list((generator.random(2) < rate) * 1.0) for i, rate in enumerate(rates)}
            for _ in range(2)
        ]
        result = compare(*arms, seed)
        found += result.p_value < 0.05

    assert found <= 7
