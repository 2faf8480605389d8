"""Values as people write them: YAML files, `key=value` lists, JSON; and hints for wrong names."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml

_MAX_HINTS = 3
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text (put it in quotes)",
    list[int]: "whole numbers",
    list[float]: "numbers",
    dict: "a mapping of names to values",
}


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
        what: What is read, for errors, such as `--arm`.

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
        what: What is read, for errors.

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


def switch_word(word: str) -> str:
    """Put yes and no for on and off, which YAML reads and TRL's flags do not."""
    return {"on": "yes", "off": "no"}.get(word.lower(), word)


def check_kind(given: Any, hint: Any, what: str) -> None:
    """Refuse a YAML value that its flag would not read; 2.0 is no whole number, as in a flag.

    Args:
        given: Not None. A text passes, since the flag's own type reads it.
        hint: The field's type; what is not plain (a choice, a class) is checked by the settings.
        what: What is read, for errors.

    Raises:
        ValueError: If the kinds differ.
    """
    every = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    parts = [part for part in every if part is not type(None)]
    if not isinstance(given, str) and not any(_fits(given, part) for part in parts):
        kinds = [_KINDS.get(part) or _KINDS[get_origin(part)] for part in parts]
        raise ValueError(f"{what} must be {' or '.join(kinds)}, got {given!r}.")


def _fits(given: Any, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if kind is list:
        items = given if isinstance(given, list) else [given]
        return hint not in _KINDS or all(_fits(item, get_args(hint)[0]) for item in items)
    if kind is dict:
        return isinstance(given, Mapping)
    if kind is float:
        return type(given) in (int, float)
    return kind not in _KINDS or type(given) is kind


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


def plain_error(text: str) -> str:
    """Say an error of argparse in plain words, with one spelling of each flag."""
    text = re.sub(r"(--\w+)(/-[-\w]+)+", r"\1", text).removeprefix("argument ")
    text = re.sub(r"^the following arguments are required: ", "missing: ", text)
    for kind, words in (("int", "a whole number"), ("float", "a number")):
        text = text.replace(f": invalid {kind} value: ", f" must be {words}, got ")
    text = re.sub(
        r": invalid choice: (.*) \(choose from (.*)\)$", r" must be one of \2, got \1", text
    )
    return text if text.endswith((".", "?")) else f"{text}."


def unknown_names(unknown: Iterable[str], known: Iterable[str], prefix: str = "--") -> str:
    """Say which names are unknown, and the nearest known ones."""
    known = list(known)
    sentences = []
    for name in unknown:
        near = [f"{prefix}{k}" for k in nearest_names(name, known)]
        hint = f"; did you mean {' or '.join(near)}?" if near else "; --help lists them."
        sentences.append(f"{prefix}{name} is not known{hint}")
    return " ".join(sentences)
