"""Flags of the scripts, from a YAML file and the command line, which wins."""

import argparse
import difflib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def start_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Make a script's parser, which has `--config` and shows defaults."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of flags; the command line wins over it"
    )
    return parser


def parse_own_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse flags from `--config FILE` and the command line; an unknown one offers the nearest.

    Raises:
        SystemExit: As argparse does, with a message.
    """
    args = parse_arguments(parser, argv)
    if args.trainer_args:
        parser.error(unknown_flag_message(args.trainer_args, vars(args)))
    del args.trainer_args
    return args


def parse_arguments(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse our own flags; leave the others, from file and command line, in `trainer_args`.

    Returns:
        Our flags and `trainer_args`, a list of strings for the trainer's own parser.
    """
    only_config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only_config.add_argument("--config")
    file = only_config.parse_known_args(argv)[0].config
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        from_file = _to_flags(load_config(file), parser, words) if file else []
    except (OSError, ValueError) as error:
        parser.error(str(error))
    args, rest = parser.parse_known_args([*from_file, *words])
    args.trainer_args = rest
    return args


def load_config(file: str) -> dict[str, Any]:
    """Read a YAML file of flags.

    Raises:
        ValueError: If it is not a mapping of names to values.
    """
    try:
        config = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"{file} must map flag names to values, got {type(config).__name__}.")
    return dict(config)


def _to_flags(
    config: Mapping[str, Any], parser: argparse.ArgumentParser, words: Sequence[str]
) -> list[str]:
    """Write a mapping as command-line flags; `null` leaves a flag at its default.

    A flag that may be given several times is left out when the command line has it.
    """
    switches = {a.dest for a in parser._actions if isinstance(a, argparse._StoreTrueAction)}
    repeated = {a.dest for a in parser._actions if isinstance(a, argparse._AppendAction)}
    given = {word.partition("=")[0] for word in words}
    flags: list[str] = []
    for name, value in config.items():
        if name == "config":
            raise ValueError("A config file cannot name another one ('config').")
        if value is None or (name in switches and value is False):
            continue
        if name in repeated:
            if f"--{name}" not in given:
                values = value if isinstance(value, list) else [value]
                flags += [part for item in values for part in (f"--{name}", str(item))]
            continue
        flags.append(f"--{name}")
        if name in switches and value is True:
            continue
        if isinstance(value, bool):
            flags.append(str(value).lower())
        elif isinstance(value, list):
            flags += [str(item) for item in value]
        else:
            flags.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return flags


def read_flags(words: Sequence[str]) -> dict[str, Any]:
    """Read `--name value` words back into a mapping that `--config` accepts; numbers as numbers."""
    flags: dict[str, list[Any]] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            values = flags.setdefault(name.replace("-", "_"), [])
            values[:] = [_to_number(value)] if value else []
        else:
            values.append(_to_number(word))
    return {
        name: values[0] if len(values) == 1 else values or True for name, values in flags.items()
    }


def _to_number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def unknown_flag_message(unknown: Sequence[str], known: Iterable[str]) -> str:
    """Name the unknown flags and the nearest known ones."""
    known = sorted(known)
    hints = []
    for flag in (word.split("=")[0] for word in unknown if word.startswith("--")):
        near = difflib.get_close_matches(flag.lstrip("-").replace("-", "_"), known, n=1)
        hints.append(f"{flag} is not a flag" + (f"; did you mean --{near[0]}?" if near else "."))
    return " ".join(hints) or f"Unexpected words: {' '.join(unknown)}."
