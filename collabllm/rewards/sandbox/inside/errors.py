"""Errors between the two processes: each side raises its own, with the other's bases and text.

The program's own classes are made anew on the tests' side, base for base, so that `except` with a
base class works. An error that a function of the tests raised comes back as the same object.
"""

import builtins
import sys
from typing import Any

from collabllm.rewards.sandbox.inside.wire import Codec

_MAX_TEXT, _MAX_ARGUMENTS = 2000, 8
_NOT_LIBRARIES = ("__main__", "__test__", "collabllm")  # the tests' own errors are nobody else's
_ORIGIN = "_number_on_the_tests_side"


def describe_class(codec: Any, kind: type) -> dict[str, Any]:
    """Return the JSON form of a class of errors with its bases. Runs in the program's process."""
    if kind.__module__ == "builtins":
        return {"builtin": kind.__name__}
    codec.objects[id(kind)] = kind
    bases = [describe_class(codec, b) for b in kind.__bases__ if issubclass(b, BaseException)]
    return {"id": id(kind), "name": kind.__name__, "module": kind.__module__, "bases": bases}


def describe_error(codec: Any, error: BaseException) -> dict[str, Any]:
    """Return the JSON form of an error. Runs in the program's process."""
    held = getattr(error, "__dict__", {})
    return {
        "class": describe_class(codec, type(error)),
        "text": _text(error),
        "args": [_encode(codec, arg) for arg in error.args[:_MAX_ARGUMENTS]],
        "held": {str(k): _encode(codec, v) for k, v in held.items() if k != _ORIGIN},
        "origin": held.get(_ORIGIN),
    }


def to_error(codec: Codec, told: Any) -> BaseException:
    """Return an error of the tests as the program sees it: a built-in one, or one of its own."""
    found = codec.decode(told["class"])
    error = make_error(found, codec.decode(told["args"]))
    error.__dict__[_ORIGIN] = told["origin"]
    return error


def make_error(kind: Any, args: list[Any]) -> BaseException:
    """Return an error of a class, past its `__init__` if that wants other arguments."""
    try:
        made = kind(*args)
    except Exception:
        made = kind.__new__(kind)
        made.args = tuple(args)
    if not isinstance(made, BaseException):
        raise TypeError(f"{kind} is no error")
    return made


class ErrorClasses:
    """The program's classes of errors as the tests' side knows them."""

    def __init__(self) -> None:
        self._made: dict[int, type[BaseException]] = {}

    def find(self, told: dict[str, Any]) -> type[BaseException]:
        """Return a built-in class, a library's that the tests have loaded, or one made for it."""
        if "builtin" in told:
            return _as_error(getattr(builtins, told["builtin"], None)) or RuntimeError
        module = sys.modules.get(told["module"])
        known = _as_error(getattr(module, told["name"], None)) if module else None
        if known and told["module"].partition(".")[0] not in _NOT_LIBRARIES:
            return known
        if told["id"] not in self._made:
            bases = tuple(self.find(base) for base in told["bases"]) or (Exception,)
            self._made[told["id"]] = type(str(told["name"]), bases, {"__str__": _told_text})
        return self._made[told["id"]]

    def number_of(self, kind: type) -> int | None:
        """Return the program's number of a class, or None where it is none of the program's."""
        return next((number for number, made in self._made.items() if made is kind), None)


def _as_error(found: Any) -> type[BaseException] | None:
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _told_text(error: BaseException) -> str:
    return str(error.__dict__.get("_told_text", Exception.__str__(error)))


def _encode(codec: Codec, value: Any) -> Any:
    try:
        return codec.encode(value)
    except Exception:
        return None


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_TEXT]
    except Exception:
        return ""
