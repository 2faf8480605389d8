"""Settings of a stage: one dataclass gives its Python arguments, its flags and its YAML keys.

A field made by `setting` carries its sentence for `--help`. Classes are combined by inheritance; a
class with `_argument_group_name` is a group in `--help`.
"""

import argparse
import copy
import dataclasses
import difflib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from trl.scripts.utils import TrlParser

S = TypeVar("S")

_MAX_HINTS = 3
_OURS = ("least", "most", "positional", "decides")  # in a field's metadata, unknown to argparse


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
    metadata |= {name: value for name, value in ours.items() if value is not None}
    if repeated:
        metadata["action"] = _Repeat
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
            value = getattr(self, field.name)
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
    argv: Sequence[str] | None = None,
    *,
    description: str = "",
    epilog: str | None = None,
) -> tuple[S, dict[str, Any]]:
    """Read settings as `parse_settings` does, and leave other flags to the trainer's own config.

    Returns:
        The settings, and the other flags by name with their texts or YAML values; a flag without
        a value is True.
    """
    parser = _Parser(settings, description, epilog)
    found, rest = parser.read(argv)
    return found, rest


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


def load_config(file: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not a mapping of names to values.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--config {file}: there is no such file.")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"{file} must map names to values, got {type(config).__name__}.")
    if "config" in config:
        raise ValueError(f"{file}: a config file cannot name another one ('config').")
    return {str(name).replace("-", "_"): value for name, value in config.items()}


def read_mapping(given: str | Mapping[str, Any], what: str) -> dict[str, Any]:
    """Read `key=value,key=value`, a JSON object, or a mapping from YAML.

    Args:
        given: As on the command line or in a config file. A value may hold commas: only a comma
            before `key=` ends it.
        what: For errors, such as `--arm`.

    Raises:
        ValueError: If there is a part without `=`, or a key twice.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if given.lstrip().startswith("{"):
        return parse_json(given, what)
    found: dict[str, Any] = {}
    key = ""
    for part in given.split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip().isidentifier():
            key = name.strip()
            if key in found:
                raise ValueError(f"{what} {given!r}: {key!r} is given twice.")
            found[key] = value
        elif key:
            found[key] += f",{part}"
        else:
            raise ValueError(f"{what} must be key=value,key=value, got {given!r}.")
    return found


def to_value(given: Any, hint: Any, what: str) -> Any:
    """Turn a text of `key=value` into the type that a parameter asks for; other values pass.

    Args:
        given: Such as `"3"`, `"true"`, or `"a+b"` for a tuple.
        hint: The parameter's type.
        what: For errors.

    Raises:
        ValueError: If the text does not fit.
    """
    parts = [part for part in get_args(hint) if part is not type(None)]
    kind = parts[0] if get_origin(hint) in (Union, UnionType) else get_origin(hint) or hint
    if isinstance(given, list) and kind is tuple:
        return tuple(given)
    if not isinstance(given, str):
        return given
    if kind is tuple:
        return tuple(filter(None, given.split("+")))
    try:
        if kind is bool:
            return {"true": True, "false": False}[given.lower()]
        return kind(given)
    except (KeyError, ValueError):
        raise ValueError(f"{what} must be {kind.__name__}, got {given!r}.") from None


def parse_json(given: str | Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Read a JSON object from a flag, or take a mapping from YAML; nothing gives an empty one.

    Raises:
        ValueError: If it is not a JSON object.
    """
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    try:
        value = json.loads(given)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} must be a JSON object, got {given!r} ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object, got {given!r}.")
    return value


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that a wrong one may mean: initials, typos, parts, then likeness."""
    wanted, known = name.lower(), sorted(known)
    parts = [k for k in known if wanted in k or k in wanted]
    initials = [k for k in known if "".join(word[:1] for word in k.split("_")) == wanted]
    typos = difflib.get_close_matches(wanted, known, n=_MAX_HINTS, cutoff=0.85)
    alike = difflib.get_close_matches(wanted, known, n=_MAX_HINTS)
    found = [*initials, *typos, *sorted(parts, key=lambda k: abs(len(k) - len(wanted))), *alike]
    return list(dict.fromkeys(found))[:_MAX_HINTS]


def unknown_names(unknown: Iterable[str], known: Iterable[str], prefix: str = "--") -> str:
    """Say which names are unknown, and the nearest known ones."""
    known = list(known)
    sentences = []
    for name in unknown:
        near = [f"{prefix}{k}" for k in nearest_names(name, known)]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; --help lists them."
        sentences.append(f"{prefix}{name} is not known{hint}")
    return " ".join(sentences)


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
        hints = get_type_hints(dtype)
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
        if field.metadata.get("positional"):
            group.add_argument(field.name, **metadata)
            return
        if (metavar := _metavar(field.type)) and "choices" not in metadata:
            metadata.setdefault("metavar", metavar)
        field.metadata = metadata  # type: ignore[assignment]
        self._parse_dataclass_field(group, field)

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
        print(f"{self.prog}: {message}\n(--help lists the flags.)", file=sys.stderr)
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
