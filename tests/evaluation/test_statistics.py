"""Statistics against examples worked out by hand."""

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import permutation_test

from benchmarks.evaluation_statistics import false_over_seeds
from collabllm.evaluation import hypotheses, statistics
from collabllm.evaluation.hypotheses import (
    correct,
    first_levels,
    mcnemar,
    p_value_of,
    smallest_possible,
)
from collabllm.evaluation.hypotheses import sign_flip_test as flip
from collabllm.evaluation.power import smallest_of_flips, smallest_of_mcnemar
from collabllm.evaluation.statistics import (
    difference_interval,
    mean_interval,
    moments,
    noise_floor,
    smallest_detectable,
)


def column(values):
    """Give tasks one seed: shape [tasks, 1]."""
    return np.array(values, dtype=float)[:, None]


def alone(number):
    """Make every task a cluster of its own."""
    return np.arange(number)


def test_the_p_value_of_few_tasks_counts_all_sign_patterns():
    # Of 2 ** 3 = 8 sign patterns of (1, 2, 3) two reach a sum of 6 or -6.
    assert flip(np.array([1.0, 2.0, 3.0]), alone(3)) == 0.25
    # (1, 1, -1): sums 3, 1 (x3), -1 (x3), -3: all reach |1|.
    assert flip(np.array([1.0, 1.0, -1.0]), alone(3)) == 1.0
    assert flip(np.zeros(5), alone(5)) == 1.0
    assert flip(np.array([7.0]), alone(1)) == 1.0


def test_a_p_value_is_never_0_whatever_the_unit():
    generator = np.random.default_rng(0)
    for size in (3, 8, 14, 40):
        tokens = generator.integers(1, 3000, (200, size)) / 3 + 1e4
        found = flip(tokens, alone(size))
        assert found.min() >= min(2.0**-size, 1 / 20_000)


def test_the_sign_flips_are_those_of_scipy_where_no_sums_are_equal():
    generator = np.random.default_rng(1)
    for _ in range(10):
        sample = generator.normal(0.3, 1, 9)
        theirs = permutation_test(
            (sample,), np.mean, permutation_type="samples", n_resamples=1000, vectorized=True
        )
        assert flip(sample, alone(9)) == pytest.approx(theirs.pvalue)


def test_tasks_of_a_cluster_flip_together():
    # Two clusters with sums 3 and 3: of 4 patterns, ++ and -- reach 6.
    assert flip(np.array([1.0, 2.0, 3.0, 0.0]), np.array([0, 0, 1, 1])) == 0.5


def test_mcnemar_is_the_binomial_test_of_the_discordant_tasks():
    # 5 wins, 0 losses: 2 / 2 ** 5. 3 wins, 1 loss: (1 + 4) * 2 / 16.
    assert mcnemar(np.array([1.0] * 5 + [0.0] * 9)) == pytest.approx(0.0625)
    assert mcnemar(np.array([1.0, 1.0, 1.0, -1.0])) == pytest.approx(0.625)
    assert mcnemar(np.zeros(4)) == 1.0


def test_the_test_fits_the_data():
    assert p_value_of(column([1, 0, 0]), alone(3)) == (1.0, "McNemar")
    assert p_value_of(column([0.9, 0, 0.5]), alone(3)) == (0.5, "sign flips")
    assert p_value_of(column([1, 1, 1]), np.array([0, 0, 1]))[1] == "sign flips"
    p_value, test = p_value_of(np.array([[0.1, 0.9], [0.2, 0.8]] * 3), alone(6))
    assert test == "t over tasks and seeds"
    assert p_value > 0.2  # six tasks agree, but two trainings do not


@pytest.mark.parametrize(("num_seeds", "spread"), [(2, 0.1), (3, 0.1), (3, 0.03), (5, 0.1)])
def test_recipes_that_are_equal_are_rarely_told_apart_at_any_level(num_seeds, spread):
    shares = false_over_seeds(60, num_seeds, spread, 1000, (0.05, 0.0225, 0.005))

    for share, level in zip(shares, (0.05, 0.0225, 0.005), strict=True):
        assert share <= level + 3 * (level / 1000) ** 0.5


@pytest.mark.parametrize("num_tasks", [6, 28])
@pytest.mark.parametrize(("num_seeds", "spread"), [(2, 0.0), (2, 0.3), (3, 0.3)])
def test_shares_of_few_tasks_that_often_agree_by_luck_tell_no_equal_recipes_apart(
    num_tasks, num_seeds, spread
):
    levels = (0.05, 0.0225, 0.005, 0.0005)

    shares = false_over_seeds(num_tasks, num_seeds, spread, 1000, levels, binary=True)

    for share, level in zip(shares, levels, strict=True):
        assert share <= level + 3 * (level / 1000) ** 0.5


def test_two_trainings_with_the_same_mean_do_not_get_a_tiny_p_value():
    values = np.zeros((12, 2))
    values[:8, 0] = values[4:, 1] = 1  # each is right on 8 of 12 tasks, on others

    p_value, _ = p_value_of(values, alone(12))

    assert p_value > 0.01


@pytest.mark.parametrize(("wins", "losses", "ties"), [(5, 0, 1), (9, 1, 0), (9, 0, 1)])
def test_two_trainings_that_say_the_same_show_no_more_than_one(wins, losses, ties):
    one = column([1.0] * wins + [-1.0] * losses + [0.0] * ties)

    p_value, _ = p_value_of(np.repeat(one, 2, axis=1), alone(len(one)))

    assert p_value >= p_value_of(one, alone(len(one)))[0] - 1e-9


def test_a_clear_effect_of_three_trainings_is_found():
    generator = np.random.default_rng(0)
    values = 0.3 + 0.2 * generator.standard_normal((60, 1)) + np.array([[-0.02, 0.0, 0.02]])

    p_value, _ = p_value_of(values, alone(60))

    # at this p the quantiles of 59 and of 2 degrees of freedom give the mean
    half = p_value / 2
    of_tasks = stdtrit(59, half) ** 2 * values.mean(axis=1).var(ddof=1) / 60
    of_seeds = stdtrit(2, half) ** 2 * values.mean(axis=0).var(ddof=1) / 3
    assert values.mean() ** 2 == pytest.approx(of_tasks + of_seeds)
    assert p_value < 0.005


def test_seeds_that_agree_to_the_letter_do_not_give_a_p_value_of_0():
    p_value, _ = p_value_of(np.full((8, 3), 0.5), alone(8))

    assert p_value == 2 / 2**8


def test_nothing_seen_in_28_tasks_leaves_room_for_12_percent():
    # Rule of three, exactly: 1 - 0.025 ** (1 / 28).
    low, high = mean_interval(column([0.0] * 28), alone(28), bounded=True)
    assert (low, high) == (0.0, pytest.approx(0.1234, abs=1e-4))
    low, high = difference_interval(column([0.0] * 28), alone(28), bounded=True)
    assert (low, high) == (pytest.approx(-0.1234, abs=1e-4), pytest.approx(0.1234, abs=1e-4))


def test_the_interval_of_independent_zeros_and_ones_is_wilsons():
    # 7 of 10 at 95%: Wilson gives [0.3968, 0.8922].
    low, high = mean_interval(
        column([1.0] * 7 + [0.0] * 3), alone(10), bounded=True, independent=True
    )
    assert (low, high) == (pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4))


def test_the_interval_of_tokens_is_students_of_the_logarithm():
    # Mean 20, standard error 10 / sqrt(3), t of 2 degrees of freedom 4.3027: 20 times and divided
    # by exp(24.841 / 20).
    low, high = mean_interval(column([10, 20, 30]), alone(3), bounded=False)
    assert (low, high) == (pytest.approx(5.7757, abs=1e-3), pytest.approx(69.256, abs=1e-3))


def test_values_that_may_be_negative_have_students_interval():
    low, high = mean_interval(column([-10, 0, 10]), alone(3), bounded=False)
    assert (low, high) == (pytest.approx(-24.841, abs=1e-3), pytest.approx(24.841, abs=1e-3))
    both = np.stack([column([-10, 0, 10]), column([10, 20, 30])])  # each by itself
    assert mean_interval(both, alone(3), bounded=False)[0] == pytest.approx(
        [-24.841, 5.776], abs=1e-3
    )


def test_differences_by_degrees_have_students_interval_and_single_events_do_not():
    # Mean 0.2, standard error 0.2 / sqrt(4), t of 3 degrees of freedom 3.1824.
    graded = difference_interval(column([0.4, 0.2, 0.3, -0.1]), alone(4), bounded=True)
    deviation = (0.2**2 + 0.0 + 0.1**2 + 0.3**2) / 3
    half = 3.1824 * (deviation / 4) ** 0.5
    assert graded == (pytest.approx(0.2 - half, abs=1e-4), pytest.approx(0.2 + half, abs=1e-4))
    low, high = difference_interval(column([0.5] * 4), alone(4), bounded=True)
    assert low < 0.5 < high, "tasks that are all alike do not say how others are"


def test_equal_clusters_count_as_so_many_values():
    values = column([1, 1, 2, 2, 6, 6])
    found = moments(values, np.array([0, 0, 1, 1, 2, 2]))

    # Means 1, 2, 6: variance 7, of the mean 7 / 3, with 2 degrees of freedom.
    assert found.variance == pytest.approx(7 / 3)
    assert found.df == pytest.approx(2)


def test_seeds_add_their_own_variance():
    # Seeds' means 0 and 2: variance 2, of their mean 1; tasks are all alike.
    found = moments(np.array([[0.0, 2.0]] * 4), alone(4))

    assert (found.mean, found.variance, found.df) == (1.0, 1.0, 1.0)


def test_intervals_do_not_change_their_input_and_take_batches():
    values = np.linspace(0, 1, 24).reshape(2, 12, 1)
    before = values.copy()

    low, high = mean_interval(values, alone(12), bounded=True)

    assert low.shape == high.shape == (2,)
    assert (values == before).all()
    single = np.ravel(mean_interval(values[1], alone(12), bounded=True))
    assert [low[1], high[1]] == pytest.approx(single)


def test_the_smallest_difference_that_could_be_shown():
    # Many tasks: (1.95996 + 0.84162) / 1.95996 of the half width.
    assert smallest_detectable(0.1, 1e6) == pytest.approx(0.14294, abs=1e-4)
    assert smallest_detectable(0.1, 1e6, level=0.01) > 0.14294


@pytest.mark.parametrize(("number", "share"), [(28, 0.05), (28, 0.95), (60, 0.2), (200, 0.5)])
def test_what_could_be_shown_of_rare_events_is_found_four_times_in_five(number, share):
    level, random_ = 0.0225, np.random.default_rng(0)

    difference = smallest_of_mcnemar(share, number, level)

    other = share + difference if share <= 0.5 else share - difference
    draws = random_.random((2, 2_000, number)) < np.array([other, share])[:, None, None]
    found = [mcnemar(values) < level for values in draws[0].astype(float) - draws[1]]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_few_tasks_could_show_nothing_of_what_is_right_or_wrong():
    assert smallest_of_mcnemar(0.5, 7, 0.0225) is None


@pytest.mark.parametrize("level", [0.0025, 0.0225, 0.045])
@pytest.mark.parametrize("number", [6, 7, 8, 9, 10, 11, 13])
def test_what_could_be_shown_of_few_clusters_is_found_four_times_in_five(number, level):
    if smallest_possible(number, "sign flips") >= level:
        return

    mean = smallest_of_flips(number, level)

    samples = np.random.default_rng(1).normal(mean, 1, (2_000, number))
    assert np.mean(flip(samples, alone(number)) < level) == pytest.approx(0.8, abs=0.03)


def test_what_could_be_shown_of_the_fewest_clusters_needs_all_signs_alike():
    # P(all six above 0) is Phi(mean)^6, and 0.8 for a mean of 1.793 (below 0: nearly never).
    assert smallest_of_flips(6, 0.045) == pytest.approx(1.793, abs=0.04)


def test_the_noise_floor_is_the_spread_of_whole_repeats():
    # Variances 0.5 and 0, mean 0.25; of a mean of two rollouts 0.125; of two tasks 0.0625.
    assert noise_floor({"a": [0.0, 1.0], "b": [1.0, 1.0]}) == pytest.approx(0.25)
    assert noise_floor({"a": [1.0], "b": [0.0]}) is None


def test_the_noise_floor_is_the_true_one_for_any_number_of_rollouts():
    generator = np.random.default_rng(0)
    for k in (2, 5):
        rates = generator.random(40)
        repeats = generator.binomial(k, rates, (4000, 40)).mean(axis=1) / k
        found = [
            noise_floor({str(i): list(map(float, row)) for i, row in enumerate(rows)})
            for rows in generator.random((200, 40, k)) < rates[:, None]
        ]
        assert np.mean(found) == pytest.approx(repeats.std(), rel=0.03)


def test_the_smallest_p_value_is_that_of_the_test():
    assert smallest_possible(13, "sign flips") == 2 / 2**13
    assert smallest_possible(14, "sign flips") == 2 / 2**14
    assert smallest_possible(20, "sign flips") == 1 / 20_000
    assert smallest_possible(20, "McNemar") == 2 / 2**20 == mcnemar(np.ones(20))
    assert smallest_possible(6, "t over tasks and seeds") == 2 / 2**6


def test_a_correction_over_equals_is_holms():
    assert correct([0.01, 0.04, 0.03], [True] * 3) == pytest.approx([0.03, 0.06, 0.06])
    assert correct([0.5, 0.9], [False] * 2) == [1.0, 1.0]
    assert correct([], []) == []


def test_primary_outcomes_have_nine_tenths_of_the_error_rate():
    # Weights 0.45, 0.45, 0.1. First 0.001 / 0.45; then 0.02 * 0.55 / 0.45; the last 0.04 * 1.
    adjusted = correct([0.001, 0.02, 0.04], [True, True, False])

    assert adjusted == pytest.approx([0.00222, 0.02444, 0.04], abs=1e-5)
    assert first_levels(2, 1) == pytest.approx((0.005, 0.0225))
    assert first_levels(2, 0)[1] == 0.025
    assert first_levels(0, 2)[0] == 0.025


def test_degrees_of_freedom_without_matrices_are_those_of_the_matrices():
    random_ = np.random.default_rng(0)
    for number in (2, 3, 6, 12, 28, 60):
        for highest in (1, 2, 8):
            sizes = random_.integers(1, highest + 1, number).astype(float)
            scale = 1 / np.maximum(1 - sizes / sizes.sum(), 1 / sizes.sum())
            root = np.sqrt(scale)
            centered = np.diag(sizes) - np.outer(sizes, sizes) / sizes.sum()
            unlike = centered * np.outer(root, root)
            alike = (root[:, None] * centered) @ (root[:, None] * centered).T
            former = min(np.trace(m) ** 2 / (m**2).sum() for m in (unlike, alike))

            assert statistics._satterthwaite(sizes, scale) == pytest.approx(former, rel=1e-12)


def test_sums_of_groups_are_those_of_a_product_with_zeros_and_ones():
    random_ = np.random.default_rng(0)
    values, groups = random_.normal(size=(3, 2, 40)), random_.permutation(np.arange(40) % 7)

    found = statistics.sum_groups(values, groups)

    assert found == pytest.approx(values @ statistics.one_hot(groups), rel=1e-12, abs=1e-14)


def test_signs_of_many_clusters_are_flipped_in_parts_as_they_were_at_once():
    number = 251
    values = np.random.default_rng(0).normal(0.05, 1, size=(2, number))
    signs = hypotheses._sign_patterns.__wrapped__(number, 4)
    at_once = (np.abs(signs @ values.T) >= np.abs(values.sum(axis=1)) - 1e-9).mean(axis=0)

    assert flip(values, np.arange(number), 4).tolist() == at_once.tolist()
    assert len(list(hypotheses._sign_blocks(number, 4))) == 20
