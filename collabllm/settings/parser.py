"""The parser behind `parse_settings`: TRL's, with groups, dashes, and errors of one sentence."""

import argparse
import copy
import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from trl.scripts._hf_argparser import string_to_bool
from trl.scripts.utils import TrlParser

from collabllm.settings.values import (
    check_kind,
    load_config,
    parse_json,
    plain_error,
    switch_word,
    unknown_names,
)

S = TypeVar("S")

_OURS = ("least", "most", "positional", "decides", "repeated")  # unknown to argparse


def parse_settings(
    settings: type[S],
    argv: Sequence[str] | None = None,
    *,
    description: str = "",
    epilog: str | None = None,
) -> S:
    """Read settings from `--config FILE` (YAML) and the command line, which wins.

    Args:
        settings: A dataclass of `setting` fields; its `__post_init__` checks values.
        argv: Words of the command line; those of this process by default.
        description: First paragraph of `--help`.
        epilog: Last paragraph of `--help`.

    Raises:
        SystemExit: With status 2 and one sentence, if a flag, a value or the file does not fit.
    """
    parser = _Parser(settings, description, epilog)
    found: S
    found, rest = parser.read(argv)
    if rest:
        parser.error(unknown_names(rest, parser.names))
    return found


def parse_settings_and_rest(
    settings: type[S],
    rest_names: Callable[[], Collection[str]],
    argv: Sequence[str] | None = None,
    *,
    description: str = "",
    epilog: str | None = None,
) -> tuple[S, dict[str, Any]]:
    """Read settings as `parse_settings` does, and leave other flags to the trainer's own config.

    Args:
        settings: As in `parse_settings`.
        rest_names: Gives the names of the other flags; called only where one is given.
        argv: As in `parse_settings`.
        description: As in `parse_settings`.
        epilog: As in `parse_settings`.

    Returns:
        The settings, and the other flags by name with their texts or YAML values; a flag without
        a value is True.

    Raises:
        SystemExit: With status 2 and one sentence, if a flag, a value or the file does not fit.
    """
    parser = _Parser(settings, description, epilog)
    found, rest = parser.read(argv)
    known = rest_names() if rest else ()
    unknown = [name for name in rest if name not in known and name.removeprefix("no_") not in known]
    if unknown:
        parser.error(unknown_names(unknown, [*parser.names, *known]))
    return found, rest


class _Parser(TrlParser):
    """TRL's parser with groups, dashes, one-line errors, and a config file that is checked."""

    def __init__(self, settings: type, description: str, epilog: str | None) -> None:
        words = [f.name for f in dataclasses.fields(settings) if f.metadata.get("positional")]
        super().__init__(
            [settings],
            usage=" ".join(["%(prog)s", *words, "[--config FILE] [--flag VALUE ...]"]),
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win")
        self.add_argument(
            "--debug", action="store_true", help="show the traceback of an error of yours, too"
        )
        self.names = [a.dest for a in self._actions if a.dest != "help"]

    def _add_dataclass_arguments(self, dtype: type) -> None:
        """Add a group a class, in the order in which the classes are inherited."""
        hints = self._hints = get_type_hints(dtype)
        fields = {field.name: field for field in dataclasses.fields(dtype) if field.init}
        for owner in [dtype, *(c for c in dtype.__mro__[1:] if dataclasses.is_dataclass(c))]:
            own = [name for name in vars(owner).get("__annotations__", {}) if name in fields]
            title = vars(owner).get("_argument_group_name")
            group = self.add_argument_group(title) if title and own else self
            for name in own:
                self._add_field(group, fields.pop(name), hints[name])

    def _add_field(self, group: Any, field: dataclasses.Field[Any], hint: Any) -> None:
        field = copy.copy(field)
        field.type = _argument_type(field.name, hint)
        metadata = {name: value for name, value in field.metadata.items() if name not in _OURS}
        if field.metadata.get("repeated"):
            metadata["action"] = _Repeat
        if field.metadata.get("positional"):
            group.add_argument(field.name, **metadata)
            return
        if (metavar := _metavar(field.type)) and "choices" not in metadata:
            metadata.setdefault("metavar", metavar)
        field.metadata = metadata  # type: ignore[assignment]
        self._parse_dataclass_field(group, field)
        action = self._option_string_actions[f"--{field.name}"]
        if action.type is string_to_bool:
            action.type = _to_bool
        if off := self._option_string_actions.get(f"--no_{field.name}"):
            off.help = f"turn --{field.name} off"

    def read(self, argv: Sequence[str] | None) -> tuple[Any, dict[str, Any]]:
        words = _with_underscores(sys.argv[1:] if argv is None else argv)
        only_config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        only_config.add_argument("--config")
        file = only_config.parse_known_args(words)[0].config
        try:
            config = load_config(file) if file else {}
            config = {
                self._name_of(name): value for name, value in config.items() if value is not None
            }
            for name in config.keys() & self._hints.keys():
                check_kind(config[name], self._hints[name], f"{file}: {name}")
            rest = {name: value for name, value in config.items() if name not in self.names}
            self.set_defaults_with_config(
                **{name: value for name, value in config.items() if name in self.names}
            )
            found, _, unknown = self.parse_args_into_dataclasses(
                args=words, return_remaining_strings=True, look_for_args_file=False
            )
            return found, {**rest, **self._read_rest(unknown)}
        except (OSError, TypeError, ValueError) as error:
            self.error(str(error))

    def _name_of(self, key: str) -> str:
        """Return the field that a key of a config file names, which may be an alias."""
        action = self._option_string_actions.get(f"--{key}")
        return key if action is None or key == f"no_{action.dest}" else action.dest

    def _read_rest(self, words: Sequence[str]) -> dict[str, Any]:
        """Read `--name value` words that are not ours."""
        found: dict[str, Any] = {}
        name = ""
        for word in words:
            if word.startswith("--") and len(word) > 2:
                name, equals, value = word[2:].partition("=")
                found[name] = value if equals else True
            elif not name:
                raise ValueError(f"Unexpected word {word!r}; flags start with --.")
            elif found[name] is True:
                found[name] = word
            else:
                before = found[name] if isinstance(found[name], list) else [found[name]]
                found[name] = [*before, word]
        return found

    def error(self, message: str) -> NoReturn:
        """End with one sentence instead of the whole usage."""
        text = plain_error(message)
        print(f"{self.prog}: {text}\n(--help lists the flags.)", file=sys.stderr)
        raise SystemExit(2)


def _argument_type(name: str, hint: Any) -> Any:
    """Return what reads a flag's word: a type, or a function for mappings in JSON."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if get_origin(hint) is list and (len(parts := get_args(get_args(hint)[0])) > 1):
        return list[str]
    if str in parts and list[str] in parts:  # one word or several
        return list[str] | None if type(None) in parts else list[str]
    if str in parts:
        return str | None if type(None) in parts else str
    if any(get_origin(part) is dict or part is dict for part in parts):

        def read(word: str) -> dict[str, Any]:
            try:
                return parse_json(word, "")
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error).strip()) from None

        return read
    return hint


def _to_bool(word: str) -> bool:
    return bool(string_to_bool(switch_word(word)))


def _metavar(kind: Any) -> str | None:
    """Return what stands for a value of this type in `--help`."""
    if inspect.isfunction(kind):
        return "JSON"
    parts = {part for part in (kind, *get_args(kind)) if isinstance(part, type)}
    return "N" if int in parts else "X" if float in parts else None


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, [], {}, False, ""):
            return action.help
        return super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Leave out the spelling with dashes, which every flag has."""
        spelled = [o for o in action.option_strings if "-" not in o.lstrip("-")]
        if not spelled:
            return super()._format_action_invocation(action)
        nargs = 0 if action.const is True else action.nargs  # a switch needs no value
        shown = argparse.Action(spelled, action.dest, nargs=nargs, metavar=action.metavar)
        shown.choices = action.choices
        return super()._format_action_invocation(shown)


class _Repeat(argparse.Action):
    """Collects a flag that is given several times; the first one replaces the default."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        kwargs.pop("nargs", None)
        super().__init__(option_strings, dest, **kwargs)
        self._seen = False

    def __call__(
        self,
        parser: Any,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest) or [] if self._seen else []
        self._seen = True
        setattr(namespace, self.dest, [*before, values])


def _with_underscores(words: Sequence[str]) -> list[str]:
    """Spell flags with underscores; values stay as they are."""
    spelled = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = f"--{name[2:].replace('-', '_')}{equals}{value}"
        spelled.append(word)
    return spelled
