"""How many people a study needs to show a wanted difference, before it begins."""

import math

from scipy.stats import nct, t

from collabllm.evaluation.hypotheses import EXACT_UNITS, first_levels
from collabllm.evaluation.power import power_of_flips
from collabllm.evaluation.statistics import MIN_UNITS
from collabllm.evaluation.study.analysis import GRADES

_MOST = 100_000


def power_of(number: int, difference: float, spread: float, level: float) -> float:
    """Return the chance that a report of this many people shows a true difference.

    Its test flips the signs of people's differences. Of more than 13 a paired t-test has as much
    power, of fewer it would have more.

    Args:
        number: Number of people, each with both arms.
        difference: True mean of the paired differences, in grades.
        spread: Their standard deviation.
        level: Two-sided, of the test.
    """
    if number <= EXACT_UNITS:
        return power_of_flips(number, abs(difference) / spread, level)
    shift, df = abs(difference) / spread * math.sqrt(number), number - 1
    limit = float(t.ppf(1 - level / 2, df))
    return float(nct.sf(limit, df, shift) + nct.cdf(-limit, df, shift))


def level_of_one(num_arms: int, level: float = 0.05) -> float:
    """Return the level at which the report tests a grade of one arm; the first is not tested."""
    _, first = first_levels(len(GRADES) * (num_arms - 1), 1, level)
    return first


def people_needed(
    difference: float,
    spread: float,
    *,
    num_arms: int = 2,
    tasks_each: int | None = None,
    power: float = 0.8,
    level: float = 0.05,
) -> int:
    """Return the least number of people, a whole number of squares of the design.

    Args:
        difference: Wanted, in grades.
        spread: Standard deviation of one person's difference between two arms.
        num_arms: All are compared with the first; the level is shared among them.
        tasks_each: Tasks per person; with fewer than there are arms, not everybody compares two.
        power: Wanted, in (0, 1).
        level: Level of all comparisons together.

    Raises:
        ValueError: If a number does not fit, or too many people would be needed.
    """
    if not (difference and spread > 0 and 0 < power < 1 and num_arms > 1):
        raise ValueError(
            f"--plan needs a difference other than 0, a --spread above 0 and two arms; got "
            f"{difference}, {spread} and {num_arms}."
        )
    each = min(tasks_each or num_arms, num_arms)
    met, all_ = each * (each - 1), num_arms * (num_arms - 1)  # share of people who meet a pair
    if not met:
        raise ValueError("--tasks_each 1 lets nobody compare two arms; people are the pairs.")
    first = level_of_one(num_arms, level)
    squares = range(num_arms, _MOST, num_arms)
    pairs = ((number, number * met // all_) for number in squares)
    found = next(
        (
            number
            for number, both in pairs
            if both >= MIN_UNITS and power_of(both, difference, spread, first) >= power
        ),
        None,
    )
    if found is None:
        raise ValueError(f"More than {_MOST:,} people would be needed for {difference}.")
    return found
