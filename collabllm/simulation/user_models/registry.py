"""Kinds of simulated users by name, and what `--user` says about one.

A kind of your own is a function with this decorator; its keyword arguments are the kind's options:

    @user_kind("stubborn")
    def stubborn_users(clients: Clients, *, patience: int = 9) -> UserFactory: ...
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from collabllm.messages import Message
from collabllm.servers.client import Address, OpenAIClient
from collabllm.settings import read_mapping, to_value, unknown_names
from collabllm.simulation.user_models.base import UserModel
from collabllm.simulation.user_models.native import END_TOKEN, NativeUserModel
from collabllm.simulation.user_models.openai import OpenAIUserModel
from collabllm.simulation.user_models.personas import Persona
from collabllm.simulation.user_models.rule_based import RuleBasedUser
from collabllm.tasks import Task
from collabllm.tasks.matching import check_matcher, facts_told

UserFactory = Callable[[Task, int], UserModel]
"""Makes the user of one conversation from its task and a seed."""
Clients = Callable[[Address], OpenAIClient]
"""Gives the run's one client of a server, or of several; None is OpenAI's."""

_KINDS: dict[str, Callable[..., UserFactory]] = {}


def user_kind(*names: str) -> Callable[[Callable[..., UserFactory]], Callable[..., UserFactory]]:
    """Register a function that makes a factory of users, under one or more names."""

    def register(build: Callable[..., UserFactory]) -> Callable[..., UserFactory]:
        _KINDS.update(dict.fromkeys(names, build))
        return build

    return register


def known_user_kinds() -> list[str]:
    """Return the names of all kinds."""
    return sorted(_KINDS)


@dataclass(frozen=True)
class UserSpec:
    """One simulated user of a run: its name, its kind, and the kind's options."""

    name: str
    kind: str = "sharded"
    options: dict[str, Any] = field(default_factory=dict)

    def models_behind_servers(self) -> list[tuple[str, Address, str]]:
        """Return model, address and role of a user behind a server, for `Session.preflight`."""
        defaults = inspect.signature(_KINDS[self.kind]).parameters
        if "model" not in defaults:
            return []
        model = self.options.get("model", defaults["model"].default)
        return [(model, self.options.get("base_url"), "user")]

    def build_factory(self, clients: Clients) -> UserFactory:
        """Make the factory of these users.

        Raises:
            ValueError: If an option has a wrong value.
        """
        return _KINDS[self.kind](clients, **self.options)


def to_user_spec(given: "UserSpec | str | Mapping[str, Any]", **defaults: Any) -> UserSpec:
    """Read what `--user` says: a kind, `name=hasty,kind=sharded,patience=1`, or a mapping of these.

    Args:
        given: From a flag, a config file or Python.
        defaults: Options that count where nothing else is said and the kind has them.

    Raises:
        ValueError: If the kind or an option is not known, or a value does not fit.
    """
    if isinstance(given, UserSpec):
        return given
    alone = isinstance(given, str) and "=" not in given and not given.startswith("{")
    values = {"kind": given} if alone else read_mapping(given, "--user")
    kind = str(values.pop("kind", "sharded"))
    if kind not in _KINDS:
        raise ValueError(
            f"--user {given}: there is no kind {kind!r}; known: {', '.join(known_user_kinds())}."
        )
    name = str(values.pop("name", kind))
    build = _KINDS[kind]
    hints = get_type_hints(build)
    known = [
        parameter.name
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(f"--user {given}: {unknown_names(unknown, ['name', 'kind', *known], '')}")
    options = {key: value for key, value in defaults.items() if key in known}
    for key, value in values.items():
        options[key] = to_value(value, hints[key], f"--user {given}: {key}")
    spec = UserSpec(name, kind, options)
    Persona(options.get("traits", ()))  # unknown traits end here, before anything runs
    return spec


@user_kind("sharded", "rule_based")
def rule_based_users(
    clients: Clients, *, patience: int = 2, one_at_a_time: bool = False, matcher: str = "auto"
) -> UserFactory:
    """Make users by rules: no server, no cost.

    Args:
        clients: Not needed.
        patience: Turns without progress until the user gives up.
        one_at_a_time: Whether the user answers only the first question of a reply.
        matcher: How questions are matched with facts, as in `facts_asked_for`.
    """
    check_matcher(matcher)

    def make_user(task: Task, seed: int) -> UserModel:
        user = RuleBasedUser.from_task(task, seed=seed, patience=patience, matcher=matcher)
        user.answers_several = not one_at_a_time
        return user

    return make_user


@user_kind("openai")
def openai_users(
    clients: Clients,
    *,
    model: str = OpenAIUserModel.default_model,
    base_url: str | list[str] | None = None,
    max_tokens: int = 1024,
    temperature: float = 1.0,
    traits: tuple[str, ...] = (),
    num_traits: int = 0,
    vary: bool = True,
) -> UserFactory:
    """Make users played by a language model behind a server.

    Args:
        clients: Clients of the run.
        model: The server's name for the model.
        base_url: Address of the server, or a list of several; OpenAI's by default.
        max_tokens: Most tokens of an answer.
        temperature: Sampling temperature.
        traits: Persona traits of every user, joined by + in a flag; none are drawn then.
        num_traits: How many random ones each user gets.
        vary: Draw, too, how much each user knows and how much it writes.
    """
    client = clients(base_url)

    def make_user(task: Task, seed: int) -> UserModel:
        drawn = Persona.sample(seed, num_traits, vary=vary)
        persona = Persona(traits) if traits else drawn
        return OpenAIUserModel(
            task.task_desc,
            task.single_turn_prompt,
            model,
            temperature=temperature,
            max_tokens=max_tokens,
            client=client,
            persona=persona,
            opening=_told_opening(task),
        )

    return make_user


@user_kind("native")
def native_users(
    clients: Clients,
    *,
    model: str = NativeUserModel.default_model,
    base_url: str | list[str] | None = None,
    max_tokens: int = 1024,
    temperature: float = 1.0,
    top_p: float = 0.8,
    end_token: str = END_TOKEN,
) -> UserFactory:
    """Make users played by a model that was trained to be one.

    Args:
        clients: Clients of the run.
        model: The server's name for the model.
        base_url: Address of the server, or a list of several.
        max_tokens: Most tokens of a message.
        temperature: Sampling temperature.
        top_p: Sample from the likeliest tokens with this much probability.
        end_token: Token by which the model ends a conversation.
    """
    client = clients(base_url)
    return lambda task, seed: NativeUserModel(
        task.task_desc,
        task.single_turn_prompt,
        model,
        temperature=temperature,
        max_tokens=max_tokens,
        terminal_signal=end_token,
        top_p=top_p,
        client=client,
        opening=_told_opening(task),
    )


def _told_opening(task: Task) -> str:
    """Return the opening where it tells facts already, as `num_told` chose it; else "".

    Who plays the user then begins with it; without one a model begins by itself.
    """
    is_written = any(opening.text == task.opening for opening in task.told_openings)
    message: Message = {"role": "user", "content": task.first_message}
    return task.first_message if is_written or facts_told(task.facts, [message]) else ""
