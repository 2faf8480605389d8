"""Coverage of an evaluation's intervals and its false findings, on made-up data of known truth.

uv run python benchmarks/evaluation_statistics.py --num_runs 20000

The tests run the same functions with fewer repeats.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from collabllm.evaluation.hypotheses import correct, p_value_of, sign_flip_test
from collabllm.evaluation.statistics import Floats, difference_interval, mean_interval
from collabllm.evaluation.study.crossed import Rating, crossed_difference
from collabllm.evaluation.study.design import Design

RATES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
NUMBERS = (6, 10, 28, 60, 200)
ICC = 0.3
"""Likeness of the tasks of a cluster, and of the rollouts of a task."""


def draw_tasks(
    rate: float, num_tasks: int, cluster_size: int, num_runs: int, generator: np.random.Generator
) -> Floats:
    """Draw the tasks' own rates of success, whose mean is `rate`; shape [runs, tasks]."""
    strength = (1 - ICC) / ICC
    if cluster_size > 1:
        shape = (num_runs, num_tasks // cluster_size)
        centers = generator.beta(rate * strength, (1 - rate) * strength, shape)
        centers = np.repeat(centers, cluster_size, axis=1).clip(1e-6, 1 - 1e-6)
    else:
        centers = np.full((num_runs, num_tasks), rate)
    return generator.beta(centers * strength, (1 - centers) * strength)


def play(rates: Floats, num_rollouts: int, parts: int, generator: np.random.Generator) -> Floats:
    """Draw each task's mean over rollouts, each the share of some parts (1: success or not)."""
    return generator.binomial(num_rollouts * parts, rates) / (num_rollouts * parts)


def cover_mean(
    rate: float, num_tasks: int, num_rollouts: int, cluster_size: int, num_runs: int, seed: int = 0
) -> float:
    """Return in which share of evaluations the interval of a mean has the true one."""
    generator = np.random.default_rng([seed, num_tasks, num_rollouts, cluster_size])
    rates = draw_tasks(rate, num_tasks, cluster_size, num_runs, generator)
    values = play(rates, num_rollouts, 1, generator)
    clusters = np.arange(num_tasks) // cluster_size
    low, high = mean_interval(
        values[..., None], clusters, bounded=True, independent=num_rollouts == 1
    )
    return float(((low <= rate + 1e-9) & (rate <= high + 1e-9)).mean())


def cover_difference(
    rate: float,
    difference: float,
    num_tasks: int,
    num_rollouts: int,
    cluster_size: int,
    num_runs: int,
    *,
    parts: int = 1,
    seed: int = 0,
) -> float:
    """Return in which share of evaluations the interval of a difference has the true one.

    The second arm's tasks are half the first one's and half their own.
    """
    generator = np.random.default_rng([seed, num_tasks, num_rollouts, cluster_size])
    first = draw_tasks(rate, num_tasks, cluster_size, num_runs, generator)
    own = draw_tasks(rate + 2 * difference, num_tasks, cluster_size, num_runs, generator)
    second = (first + own) / 2
    gain = play(second, num_rollouts, parts, generator) - play(
        first, num_rollouts, parts, generator
    )
    clusters = np.arange(num_tasks) // cluster_size
    low, high = difference_interval(gain[..., None], clusters, bounded=True)
    return float(((low <= difference + 1e-9) & (difference <= high + 1e-9)).mean())


def cover_unbounded(kind: str, num_tasks: int, num_runs: int, seed: int = 0) -> float:
    """Return the coverage for tokens: a mean or a difference of `normal` or `gamma` values."""
    generator = np.random.default_rng([seed, num_tasks])
    shape = (num_runs, num_tasks, 1)
    clusters = np.arange(num_tasks)
    if kind == "normal":
        values, truth = generator.normal(100, 30, shape), 100.0
    elif kind == "gamma":
        values, truth = generator.gamma(2.0, 50.0, shape), 100.0
    else:
        values, truth = generator.gamma(2.0, 50.0, shape) - generator.gamma(2.0, 40.0, shape), 20.0
    find = difference_interval if kind == "gamma difference" else mean_interval
    low, high = find(values, clusters, bounded=False)
    return float(((low <= truth) & (truth <= high)).mean())


def cover_seeds(
    num_tasks: int, num_seeds: int, spread: float, num_runs: int, seed: int = 0
) -> float:
    """Return the coverage of a recipe's effect (0.1), whose trainings differ by `spread`."""
    generator = np.random.default_rng([seed, num_tasks, num_seeds])
    values = (
        0.1
        + 0.2 * generator.standard_normal((num_runs, num_tasks, 1))
        + spread * generator.standard_normal((num_runs, 1, num_seeds))
        + 0.2 * generator.standard_normal((num_runs, num_tasks, num_seeds))
    )
    low, high = difference_interval(values.clip(-1, 1), np.arange(num_tasks), bounded=True)
    return float(((low <= 0.1) & (high >= 0.1)).mean())


def false_findings(
    num_arms: int,
    num_users: int,
    num_openings: int,
    num_runs: int,
    *,
    num_tasks: int = 12,
    num_metrics: int = 4,
    cluster_size: int = 1,
    seed: int = 0,
) -> float:
    """Return in which share of evaluations of equal arms anything that is shown is called found.

    All arms have the same task rates; every arm is compared with every other, with each user and
    all of them, at each opening, in each metric. Two outcomes are primary, as by default.
    """
    generator = np.random.default_rng([seed, num_arms, num_users, num_openings, cluster_size])
    clusters = np.arange(num_tasks) // cluster_size
    pairs = list(combinations(range(num_arms), 2))
    num_found = 0
    for run in range(num_runs):
        rates = draw_tasks(0.4, num_tasks, cluster_size, 1, generator)[0]
        shape = (num_arms, num_users, num_openings, num_metrics, num_tasks)
        values = play(np.broadcast_to(rates, shape), 1, 3, generator)
        values[:, :, :, 0] = play(np.broadcast_to(rates, shape)[:, :, :, 0], 1, 1, generator)
        pooled = values.mean(axis=1, keepdims=True)
        users = np.concatenate([pooled, values], axis=1) if num_users > 1 else values
        gains = np.stack([users[b] - users[a] for a, b in pairs])  # [pairs, users, openings, …]
        p_values = sign_flip_test(gains, clusters, seed=run % 7)
        primary = np.zeros(p_values.shape, dtype=bool)
        against_first = [idx for idx, (a, _) in enumerate(pairs) if a == 0]
        primary[against_first, 0, 0, 1] = True
        primary[against_first, 0, num_openings - 1, 0] = True
        num_found += min(correct(p_values.ravel().tolist(), primary.ravel().tolist())) < 0.05
    return num_found / num_runs


def false_over_seeds(
    num_tasks: int,
    num_seeds: int,
    spread: float,
    num_runs: int,
    levels: Sequence[float],
    *,
    binary: bool = False,
) -> list[float]:
    """Return how often equal recipes, whose trainings differ by `spread`, fall below levels.

    With `binary` both recipes are right or wrong on each task, half the time; trainings that are
    equal by luck are frequent then.
    """
    generator = np.random.default_rng([num_tasks, num_seeds])
    clusters = np.arange(num_tasks)
    found = []
    for _ in range(num_runs):
        of_tasks = 0.2 * generator.standard_normal((num_tasks, 1))
        if binary:
            shape = (2, 1, num_seeds)
            rates = 0.5 + of_tasks + spread / 2**0.5 * generator.standard_normal(shape)
            first, second = play(rates.clip(0, 1), 1, 1, generator)
            values = first - second
        else:
            values = of_tasks + spread * generator.standard_normal((1, num_seeds))
            values = values + 0.2 * generator.standard_normal((num_tasks, num_seeds))
        found.append(p_value_of(values, clusters)[0])
    return [float((np.array(found) < level).mean()) for level in levels]


def draw_grades(
    generator: np.random.Generator,
    *,
    num_arms: int,
    num_people: int,
    num_tasks: int,
    tasks_each: int | None = None,
) -> list[Rating]:
    """Draw grades of the first two arms as a study deals them; the second is 0.4 better.

    Arms suit single tasks, too: by half the spread between tasks.
    """
    arms, tasks = [f"arm {i}" for i in range(num_arms)], [str(i) for i in range(num_tasks)]
    design = Design(arms, tasks, tasks_each or num_arms, int(generator.integers(10**9)))
    of_person, of_task = generator.normal(0, 1, num_people), generator.normal(0, 1, num_tasks)
    suits = generator.normal(0, 0.5, (num_tasks, 2))
    ratings = []
    for person in range(num_people):
        for dealt in design.deal():
            task, arm = int(dealt.task_id), arms.index(dealt.arm)
            if arm < 2:
                value = of_person[person] + of_task[task] + suits[task, arm] + 0.4 * arm
                value += generator.normal(0, 0.7)
                ratings.append(Rating(str(person), dealt.task_id, arm == 1, float(value)))
    return ratings


def cover_crossed(
    num_arms: int, num_people: int, num_runs: int, num_tasks: int = 200
) -> tuple[float, float]:
    """Return the coverage of intervals over people and tasks, and the share that has one."""
    generator = np.random.default_rng([num_arms, num_people, num_tasks])
    covered = []
    for _ in range(num_runs):
        found = crossed_difference(
            draw_grades(generator, num_arms=num_arms, num_people=num_people, num_tasks=num_tasks)
        )
        if found is not None and found.low is not None and found.high is not None:
            covered.append(found.low <= 0.4 <= found.high)
    return float(np.mean(covered)) if covered else float("nan"), len(covered) / num_runs


def _print_row(name: str, shares: Sequence[float]) -> None:
    print(f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |", flush=True)


def main() -> None:
    """Print the tables of docs/evaluation.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_runs", type=int, default=20_000, help="evaluations of each case")
    runs = parser.parse_args().num_runs
    cases = [(n, k, 1) for n in NUMBERS for k in (1, 3, 5)]
    cases += [(n, k, 4) for n in (28, 60, 200) for k in (1, 3, 5)]
    print("Coverage of means, %; by the true rate")
    for n, k, size in cases:
        name = f"{n} tasks, {k} rollouts" + (f", clusters of {size}" if size > 1 else "")
        _print_row(name, [cover_mean(rate, n, k, size, runs) for rate in RATES])
    print("Coverage of differences, %; by rate and difference")
    for n, k, size in cases:
        name = f"{n} tasks, {k} rollouts" + (f", clusters of {size}" if size > 1 else "")
        pairs = [(rate, d) for rate in (0.05, 0.2, 0.35) for d in (0.0, 0.15)]
        shares = [cover_difference(rate, d, n, k, size, runs) for rate, d in pairs]
        shares.append(cover_difference(0.35, 0.15, n, k, size, runs, parts=3))
        _print_row(name, shares)
    print("Coverage for tokens, %; normal, gamma, difference of gammas")
    for n in NUMBERS:
        kinds = ("normal", "gamma", "gamma difference")
        _print_row(f"{n} tasks", [cover_unbounded(kind, n, runs) for kind in kinds])
    print("Coverage over trainings, %; by the spread between trainings 0, 0.03, 0.1")
    for n, seeds in ((12, 2), (12, 3), (60, 2), (60, 3), (60, 5)):
        _print_row(
            f"{n} tasks, {seeds} trainings",
            [cover_seeds(n, seeds, spread, runs) for spread in (0.0, 0.03, 0.1)],
        )
    print("Equal recipes of several trainings below 0.05, 0.0225, 0.005, 0.0005, %; by the spread")
    for n, seeds in ((60, 2), (60, 3), (60, 5)):
        for spread in (0.0, 0.03, 0.1):
            levels = (0.05, 0.0225, 0.005, 0.0005)
            name = f"{n} tasks, {seeds} trainings, spread {spread}"
            _print_row(name, false_over_seeds(n, seeds, spread, max(runs // 10, 1), levels))
    print("The same of tasks that are right or wrong")
    for n, seeds in ((6, 2), (28, 2), (28, 3), (28, 5)):
        for spread in (0.0, 0.1, 0.3):
            name = f"{n} tasks, {seeds} trainings, spread {spread}"
            levels = (0.05, 0.0225, 0.005, 0.0005)
            number = max(runs // 10, 1)
            _print_row(name, false_over_seeds(n, seeds, spread, number, levels, binary=True))
    print("Coverage over people and tasks, %, and the share with an interval; by tasks")
    for arms, people in ((2, 12), (2, 24), (2, 40), (3, 18), (3, 30), (4, 24), (4, 40)):
        for tasks in (200, 12):
            shares = cover_crossed(arms, people, max(runs // 10, 1), tasks)
            _print_row(f"{arms} arms, {people} people, {tasks} tasks", shares)
    print("Evaluations of equal arms with any finding, %; 1, 2, 3, 4 openings")
    for arms in (2, 3, 4):
        for users in (1, 2, 3):
            shares = [false_findings(arms, users, o, max(runs // 10, 1)) for o in (1, 2, 3, 4)]
            _print_row(f"{arms} arms, {users} users", shares)
    for users in (1, 3):
        shares = [
            false_findings(2, users, o, max(runs // 10, 1), num_tasks=28) for o in (1, 2, 3, 4)
        ]
        _print_row(f"2 arms, {users} users, 28 tasks", shares)
    clustered = false_findings(3, 1, 2, max(runs // 10, 1), num_tasks=28, cluster_size=4)
    _print_row("3 arms, 1 user, 2 openings, 28 tasks in clusters of 4", [clustered])


if __name__ == "__main__":
    main()
