"""Who meets which arm on which task: balanced whenever one looks, drawn by a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Assignment:
    """One task of a person, and the hidden arm that helps with it."""

    task_id: str
    arm: str


class Design:
    """Deals tasks and arms to people in the order in which they come.

    As many people as there are arms make a Latin square: they do the same tasks, with a random
    order of the arms begun at each arm once. So the arms are even at each place in the sequence and
    on each task, within one at any time.

    Args:
        arms: Names.
        tasks: Ids, at least `tasks_each`.
        tasks_each: Tasks per person.
        seed: Seed of the order of tasks and arms.

    Raises:
        ValueError: If there are fewer tasks, or no arm.
    """

    def __init__(
        self, arms: Sequence[str], tasks: Sequence[str], tasks_each: int, seed: int
    ) -> None:
        if not arms or not 1 <= tasks_each <= len(tasks):
            raise ValueError(
                f"--tasks_each must be from 1 to the number of tasks ({len(tasks)}), got "
                f"{tasks_each}; and there must be an arm."
            )
        self.arms, self.tasks_each, self.seed = list(arms), tasks_each, seed
        self._tasks = list(tasks)
        random.Random(f"{seed}-tasks").shuffle(self._tasks)
        self._begun_with: set[str] = set()  # in the present square
        self.num_dealt = 0

    def deal(self) -> list[Assignment]:
        """Return what the next person does."""
        number = self.num_dealt // len(self.arms)
        random_ = random.Random(f"{self.seed}-{number}")
        square = random_.sample(self.arms, len(self.arms))
        first = next(a for a in random_.sample(square, len(square)) if a not in self._begun_with)
        tasks = [number * self.tasks_each + place for place in range(self.tasks_each)]
        return self.take(
            [
                Assignment(
                    self._tasks[task % len(self._tasks)],
                    square[(square.index(first) + place) % len(square)],
                )
                for place, task in enumerate(tasks)
            ]
        )

    def take(self, dealt: list[Assignment]) -> list[Assignment]:
        """Count an assignment as dealt, such as one from before a restart."""
        self._begun_with.add(dealt[0].arm)
        self.num_dealt += 1
        if self.num_dealt % len(self.arms) == 0:
            self._begun_with.clear()
        return dealt
