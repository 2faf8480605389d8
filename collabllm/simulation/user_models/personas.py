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
}


@dataclass(frozen=True)
class Persona:
    """Traits of a simulated user, by name in `TRAITS`."""

    traits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [trait for trait in self.traits if trait not in TRAITS]
        if unknown:
            raise ValueError(f"Unknown traits {unknown}; known: {', '.join(TRAITS)}.")

    @classmethod
    def sample(
        cls, seed: int, num_traits: int = 2, traits: Sequence[str] = tuple(TRAITS)
    ) -> "Persona":
        """Draw traits; the same seed gives the same persona."""
        return cls(tuple(random.Random(seed).sample(list(traits), num_traits)))

    def to_prompt(self) -> str:
        """Write the traits as lines of the prompt."""
        return "\n".join(f"- {TRAITS[trait]}" for trait in self.traits)
