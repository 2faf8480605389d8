"""The panel of simulated users that all arms meet."""

import argparse
from dataclasses import dataclass

from collabllm.simulation.batch import UserFactory
from collabllm.simulation.session import Session
from collabllm.simulation.user_models import OpenAIUserModel, UserModel
from collabllm.simulation.user_models.personas import TRAITS, Persona
from collabllm.simulation.user_models.rule_based import RuleBasedUser
from collabllm.tasks import Task

_KINDS = ("sharded", "openai")
_KEYS = ("name", "kind", "model", "base_url", "traits", "num_traits", "patience", "one_at_a_time")


@dataclass(frozen=True)
class UserSpec:
    """One kind of simulated user.

    `sharded` users know the facts of a task: `patience` turns without progress make them give up,
    `one_at_a_time` lets them answer one question a turn only. `openai` users are played by `model`
    behind `base_url`, with fixed `traits` (joined by +) or `num_traits` random ones.
    """

    name: str
    kind: str = "sharded"
    model: str = "gpt-4o-mini"
    base_url: str | None = None
    traits: tuple[str, ...] = ()
    num_traits: int = 0
    patience: int = 2
    one_at_a_time: bool = False

    def build_factory(self, session: Session) -> UserFactory:
        """Make the factory of these users."""
        if self.kind == "sharded":
            return self._make_sharded
        client = session.client(self.base_url)

        def make_user(task: Task, seed: int) -> UserModel:
            persona = Persona(self.traits)
            if self.num_traits:
                persona = Persona.sample(seed, self.num_traits)
            return OpenAIUserModel(
                task.task_desc, task.single_turn_prompt, self.model, client=client, persona=persona
            )

        return make_user

    def _make_sharded(self, task: Task, seed: int) -> UserModel:
        user = RuleBasedUser.from_task(task, seed=seed, patience=self.patience)
        user.answers_several = not self.one_at_a_time
        return user


def parse_user(text: str) -> UserSpec:
    """Read `sharded`, `openai`, or `name=hasty,kind=sharded,patience=1`.

    Raises:
        argparse.ArgumentTypeError: If a key or value is unknown.
    """
    if text in _KINDS:
        return UserSpec(text, text)
    values = dict(part.partition("=")[::2] for part in text.split(","))
    unknown = [key for key in values if key not in _KEYS]
    if unknown or "name" not in values:
        raise argparse.ArgumentTypeError(
            f"--user {text}: use {', '.join(_KINDS)}, or name=NAME with any of "
            f"{', '.join(_KEYS[1:])}"
        )
    kind = values.get("kind", "sharded")
    traits = tuple(filter(None, values.get("traits", "").split("+")))
    try:
        spec = UserSpec(
            values["name"],
            kind,
            values.get("model", "gpt-4o-mini"),
            values.get("base_url"),
            traits,
            int(values.get("num_traits", 0)),
            int(values.get("patience", 2)),
            values.get("one_at_a_time", "false").lower() == "true",
        )
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"--user {text}: {error}") from None
    if kind not in _KINDS or any(trait not in TRAITS for trait in traits):
        raise argparse.ArgumentTypeError(
            f"--user {text}: kind is one of {', '.join(_KINDS)}, traits of {', '.join(TRAITS)}"
        )
    return spec
