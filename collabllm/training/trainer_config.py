"""TRL's config of a run: our defaults, then what the user set, read and checked by TRL's types."""

from argparse import Namespace
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from collabllm.settings import plain_error, switch_word, unknown_names

SECRET_FIELDS = ("hub_token",)


def read_trainer_fields(config_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read fields of a TRL config from texts of the command line, YAML values or Python values.

    Args:
        config_class: TRL's, such as `SFTConfig`.
        given: Fields by name; texts are converted to the field's type.

    Returns:
        The fields with values of their types.

    Raises:
        ValueError: In one sentence, if a value does not fit its field.
    """
    parser = _Parser(config_class, allow_abbrev=False)
    words: list[str] = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, str):
            is_switch = _type(parser, name) is string_to_bool
            words.append(f"--{name}={switch_word(value) if is_switch else value}")
        elif value is True and _type(parser, name) is not string_to_bool:
            words.append(f"--{name}")  # such as no_x, which sets another field
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            words += [f"--{name}", *value]
        else:
            values[name] = value
    read: Namespace = parser.parse_args(words)
    return {
        **{_field(parser, name): getattr(read, _field(parser, name)) for name in given},
        **values,
    }


def check_trainer_fields(
    config_class: type, given: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Refuse names that neither the settings nor the trainer's config know.

    Args:
        config_class: TRL's.
        given: Fields by name.
        own: Our settings, whose names are offered, too.

    Raises:
        ValueError: With the nearest known names.
    """
    known = {o.lstrip("-") for o in _Parser(config_class)._option_string_actions}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(unknown_names(unknown, {*known, *own} - {"h", "help"}))


def default_fields(settings: Any, output_dir: str, run_name: str, method: str) -> dict[str, Any]:
    """Return the fields of TRL's config that our settings and this device decide."""
    on_gpu = torch.cuda.is_available()
    fields: dict[str, Any] = {
        "output_dir": output_dir,
        "run_name": run_name,
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "report_to": "wandb",
        "use_cpu": not on_gpu,
        "gradient_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        # Every trained weight takes part in every step of a text model.
        "ddp_find_unused_parameters": False,
    }
    return fields


def to_number(text: Any) -> Any:
    """Return a number for a text that is one, and anything else as it is."""
    if isinstance(text, str):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def to_plain(value: Any) -> Any:
    """Return a path as its text and an enum as its value, for the files that keep settings."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _type(parser: HfArgumentParser, name: str) -> Any:
    return parser._option_string_actions[f"--{name}"].type


def _field(parser: HfArgumentParser, name: str) -> str:
    """Return the field that a flag sets: `no_x` sets `x`."""
    return str(parser._option_string_actions[f"--{name}"].dest)


class _Parser(HfArgumentParser):
    """Errors as exceptions; nothing is printed and nothing exits."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(plain_error(message))
