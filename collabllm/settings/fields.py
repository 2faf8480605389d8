"""What a settings dataclass is made of: fields with a sentence each, and checks of their values."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from collabllm.settings.values import unknown_names

S = TypeVar("S")


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    repeated: bool = False,
    choices: Sequence[Any] | None = None,
    metavar: str | None = None,
    aliases: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    positional: bool = False,
    decides: bool = True,
) -> Any:
    """Make the field of a settings dataclass.

    Args:
        default: Its value when nothing is said; none makes it required. Lists and dicts are copied.
        help: A sentence for `--help`.
        repeated: A list whose flag is given several times, one item each.
        choices: Allowed values, where `Literal` cannot say them.
        metavar: What stands for the value in `--help`.
        aliases: Other spellings of the flag, with their dashes.
        least: Smallest allowed number; `Settings` checks it.
        most: Largest allowed number; `Settings` checks it.
        positional: Given as a word without a flag's name; a text, and required.
        decides: Whether results depend on it; a resumed run may change what does not decide.
    """
    metadata: dict[str, Any] = {"help": help.replace("%", "%%")}
    ours = {"least": least, "most": most, "positional": positional, "decides": decides}
    ours |= {"repeated": repeated or None}
    metadata |= {name: value for name, value in ours.items() if value is not None}
    if choices is not None:
        metadata["choices"] = list(choices)
    if metavar:
        metadata["metavar"] = metavar
    if aliases:
        metadata["aliases"] = list(aliases)
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(kw_only=True)
class Settings:
    """Base of settings: checks bounds and choices, whoever makes the object."""

    def __post_init__(self) -> None:
        """Check every field; subclasses call this first, and then check what is theirs.

        Raises:
            ValueError: If a number is out of bounds, or a value is not among the choices.
        """
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _as_list(field.name, getattr(self, field.name), hints[field.name])
            setattr(self, field.name, value)
            least, most = field.metadata.get("least"), field.metadata.get("most")
            for number in value if isinstance(value, list) else [value]:
                if not isinstance(number, int | float):
                    continue
                if least is not None and not number >= least:
                    raise ValueError(f"{field.name} must be at least {least}, got {number}.")
                if most is not None and not number <= most:
                    raise ValueError(f"{field.name} must be at most {most}, got {number}.")
            if get_origin(hints[field.name]) is Literal:
                choices = get_args(hints[field.name])
                if value not in choices:
                    allowed = ", ".join(map(str, choices))
                    raise ValueError(f"{field.name} must be one of {allowed}, got {value!r}.")


def _as_list(name: str, value: Any, hint: Any) -> Any:
    """Make a list of a single value where the field is a list, as a YAML file may give it."""
    if get_origin(hint) is not list:
        return value
    found = [value] if isinstance(value, str | int | float) else value
    if get_args(hint) == (int,) and not all(type(number) is int for number in found):
        raise ValueError(f"{name} must be whole numbers, got {value!r}.")
    return found


def to_settings(settings: type[S], given: S | None, arguments: Mapping[str, Any]) -> S:
    """Let a library function take settings or plain keyword arguments.

    Args:
        settings: The dataclass.
        given: An object of it, or None.
        arguments: Fields by name; they change a copy of `given`.

    Raises:
        TypeError: If an argument is not a field; the text offers the nearest ones.
        ValueError: If a value does not fit.
    """
    known = [field.name for field in dataclasses.fields(settings) if field.init]  # type: ignore[arg-type]
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise TypeError(unknown_names(unknown, known, prefix=""))
    if given is None:
        return settings(**arguments)
    return dataclasses.replace(given, **arguments)  # type: ignore[type-var]


def deciding_values(settings: Any) -> dict[str, Any]:
    """Return the fields that results depend on, as JSON values."""
    values = dataclasses.asdict(settings)
    found = {
        field.name: values[field.name]
        for field in dataclasses.fields(settings)
        if field.metadata.get("decides", True)
    }
    decided: dict[str, Any] = json.loads(json.dumps(found))
    return decided


def to_yaml(settings: Any) -> str:
    """Write settings as a YAML file that `--config` reads; values that are None are left out."""
    values = {
        key: value for key, value in dataclasses.asdict(settings).items() if value is not None
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
