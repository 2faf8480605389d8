"""Personas: one sentence a trait, added to the simulated user's prompt."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

TRAITS = {
    "terse": "You write as little as you can, often without a whole sentence.",
    "chatty": "You like to tell stories around what matters.",
    "impatient": "You lose patience when the assistant asks several things or writes a lot.",
    "careless": "You mix up facts now and then, and correct yourself when it matters.",
    "expert": "You know the field well and use its words.",
    "novice": "You know little about the field and need plain words.",
    "polite": "You are friendly and say thank you.",
    "undecided": "You hesitate and sometimes change your mind about small things.",
    "plain": "You write a sentence or two, as most people do.",
    "informed": "You know about the field what most people know.",
}
GROUPS = {"verbosity": ("terse", "plain", "chatty"), "knowledge": ("novice", "informed", "expert")}
"""Traits of which one person has one at most."""


@dataclass(frozen=True)
class Persona:
    """Traits of a simulated user, by name in `TRAITS`; of each of `GROUPS` one at most."""

    traits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [trait for trait in self.traits if trait not in TRAITS]
        if unknown:
            raise ValueError(f"Unknown traits {unknown}; known: {', '.join(TRAITS)}.")
        for name, group in GROUPS.items():
            chosen = [trait for trait in self.traits if trait in group]
            if len(chosen) > 1:
                raise ValueError(f"Traits of one {name} exclude each other: {', '.join(chosen)}.")

    @classmethod
    def sample(
        cls,
        seed: int,
        num_traits: int = 2,
        traits: Sequence[str] = tuple(TRAITS),
        *,
        vary: bool = False,
    ) -> "Persona":
        """Draw traits that go together; the same seed gives the same persona.

        Args:
            seed: Seed of the drawing.
            num_traits: How many, or as many as go together.
            traits: Traits to draw from.
            vary: Draw how much the user knows and how much it writes, too.
        """
        random_ = random.Random(seed)
        chosen = [random_.choice(group) for group in GROUPS.values()] if vary else []
        wanted = num_traits + len(chosen)
        for trait in random_.sample(list(traits), len(traits)):
            if len(chosen) < wanted and not _excluded(trait, chosen):
                chosen.append(trait)
        return cls(tuple(chosen))

    def to_prompt(self) -> str:
        """Write the traits as lines of the prompt."""
        return "\n".join(f"- {TRAITS[trait]}" for trait in self.traits)


def _excluded(trait: str, chosen: Sequence[str]) -> bool:
    return any(trait in group and not set(group).isdisjoint(chosen) for group in GROUPS.values())
