"""What an evaluation finds: means, differences, rankings, questions asked, endings."""

from dataclasses import dataclass, field, replace
from typing import Literal

Opening = Literal["none", "some", "all", "unasked"]
OPENINGS: tuple[Opening, ...] = ("none", "some", "all", "unasked")
"""What the first message tells: no fact, some, everything (nothing is missing); `unasked` are tasks
without facts whose opening does not say the whole goal, so that nobody knows what is missing."""

Verdict = Literal["better", "worse", "differs", "cannot tell"]


@dataclass(frozen=True)
class Cell:
    """The mean of an arm with a user, over the tasks that it shares with the reference.

    There is no interval (None) below 6 clusters of tasks, but `values` has the mean of each task.
    `worst_low` and `worst_high` are the mean if all missing values were the least and the greatest
    possible (0 and 1, or those seen). `num_tampered` counts the values that are 0 because a reply
    attacked the metric itself.
    """

    arm: str
    user: str
    opening: Opening
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    num_tasks: int
    num_planned: int
    num_clusters: int
    num_values: int
    num_missing: int
    num_tampered: int = 0
    missing_reasons: dict[str, int] = field(default_factory=dict)
    worst_low: float | None = None
    worst_high: float | None = None
    noise_floor: float | None = None
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """An arm minus another on the tasks that both have, with its test.

    `p_value` is two-sided and uncorrected, `p_corrected` holds for all that is shown (None for
    descriptive metrics). `smallest_detectable` is the true difference that as many tasks would show
    with 80% power, after correction. `worst_low` and `worst_high` are the mean difference if the
    missing values of both arms were as bad, and as good, for the first arm as can be.
    """

    arm: str
    reference: str
    user: str
    opening: Opening
    metric: str
    primary: bool
    better: int
    mean: float
    low: float | None
    high: float | None
    arm_mean: float
    reference_mean: float
    p_value: float | None
    p_corrected: float | None
    test: str
    num_tasks: int
    num_planned: int
    num_clusters: int
    wins: int
    ties: int
    losses: int
    smallest_detectable: float | None
    worst_low: float
    worst_high: float
    values: list[float] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """What may be said: nothing unless the corrected p is below 0.05, and 0 is outside.

        A test of signs can be sure that arms differ where the mean's interval holds 0 all the same:
        of twelve small gains and one large.
        """
        if self.p_corrected is None or self.p_corrected >= 0.05 or self.mean == 0:
            return "cannot tell"
        if self.low is not None and self.high is not None and self.low <= 0 <= self.high:
            return "cannot tell"
        if not self.better:
            return "differs"
        return "better" if self.mean * self.better > 0 else "worse"

    @property
    def missing_could_change_it(self) -> bool:
        """Whether the missing values could turn the sign of the difference."""
        if self.mean == 0:
            return self.worst_low < 0 or self.worst_high > 0
        return self.worst_low <= 0 if self.mean > 0 else self.worst_high >= 0

    def reversed(self) -> "Difference":
        """Return the same difference the other way round."""

        def negate(value: float | None) -> float | None:
            return None if value is None else -value

        return replace(
            self,
            arm=self.reference,
            reference=self.arm,
            mean=-self.mean,
            low=negate(self.high),
            high=negate(self.low),
            arm_mean=self.reference_mean,
            reference_mean=self.arm_mean,
            wins=self.losses,
            losses=self.wins,
            worst_low=-self.worst_high,
            worst_high=-self.worst_low,
            values=[-value for value in self.values],
        )


@dataclass(frozen=True)
class Ranking:
    """The order of the arms in one outcome, best first, with each user and over all."""

    metric: str
    opening: Opening
    by_user: dict[str, list[str]]
    changes: bool
    """Whether two arms change places between two users."""


@dataclass(frozen=True)
class AskingPoint:
    """How often the first reply asks, where the opening tells this share of the facts."""

    arm: str
    user: str
    share_told: float
    mean: float
    low: float | None
    high: float | None
    num_tasks: int


@dataclass(frozen=True)
class Endings:
    """How often the conversations of a group ended in which way."""

    arm: str
    user: str
    opening: Opening
    counts: dict[str, int]
