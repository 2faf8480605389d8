"""Objects of the program as the tests see them: every use is a question to its process.

The program must not learn what a test expects, and must not be asked whether it is right. So a
comparison with a plain value is answered here (they differ), numbers that come out of arithmetic
with the tests' numbers are refused, and objects that claim to equal anything are found by probing.
"""

import builtins
import secrets
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, BinaryIO

from collabllm.rewards.sandbox.inside.wire import (
    Codec,
    WireError,
    receive,
    reference,
    send,
)

_JUDGING = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint"}
_JUDGING |= {name for name in dir(str) if name.startswith("is")}
_OPEN = {"__name__", "__doc__", "__dict__", "__annotations__"}
_ALIASES = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot"}


class TamperedError(BaseException):
    """The program was seen cheating; no test can catch this."""


class NotPlainError(BaseException):
    """The tests hand over what has no plain form; no fault of the program."""


class MissingLibraryError(ModuleNotFoundError):
    """The program wants a library that it does not find."""


class Link:
    """The tests' end of the pipes to the program."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader, self._writer = reader, writer
        self._callbacks: list[Callable[..., Any]] = []
        self.classes: dict[str, type[Exception]] = {}
        self.codec = _TestsCodec(self)

    def load(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Wait for the program's end, and return its names and the error that it ended with."""
        kind, names, error = receive(self._reader)
        if kind != "loaded":
            raise WireError("no answer to the first question")
        bound = {name: self._bind(name, value) for name, value in names.items()}
        return {name: value for name, value in bound.items() if value is not None}, error

    def _bind(self, name: str, encoded: Any) -> Any:
        value = self.codec.decode(encoded)
        if not isinstance(value, _Module):
            return value
        real = value.name if value.name in (name, _ALIASES.get(name)) else None
        return __import__(real, fromlist=["x"]) if real and find_spec(real) else None

    def refer(self, function: Callable[..., Any]) -> Any:
        """Number a function of the tests, so that the program may call it."""
        self._callbacks.append(function)
        return {"callback": len(self._callbacks) - 1}

    def ask(self, *question: Any, given: tuple[Any, ...] = ()) -> Any:
        """Ask, serve what the program asks meanwhile, and return its value or raise its error."""
        send(self._writer, question)
        while (answer := receive(self._reader))[0] == "callback":
            send(self._writer, self._call_back(*answer[1:]))
        sys.stdout.write(str(answer.pop()))
        if answer[0] == "raise":
            raise self._to_error(answer[1])
        _, value, changed, same = answer
        for idx, new in changed:
            _replace(given[idx], self.codec.decode(new))
        return self.codec.decode(value) if same is None else given[same]

    def _call_back(self, number: int, values: Any) -> list[Any]:
        try:
            return ["value", self.codec.encode(self._callbacks[number](*self.codec.decode(values)))]
        except Exception as error:
            return ["raise", f"{type(error).__name__}: {error}"]

    def _to_error(self, told: dict[str, Any]) -> Exception:
        if told.get("missing"):
            return MissingLibraryError(told["text"], name=str(told["missing"]))
        kind = self.classes.get(told["class"]) or _nearest_builtin(told["bases"])
        try:
            return kind(*(told["args"] or [told["text"]]))
        except TypeError:  # UnicodeDecodeError and others want more
            return RuntimeError(f"{told['class']}: {told['text']}")


class _TestsCodec(Codec):
    def __init__(self, link: Link) -> None:
        self._link = link

    def refer(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return reference({"id": object.__getattribute__(value, "_id")})
        if isinstance(value, type) and value.__module__ == "builtins":
            return reference({"builtin": value.__name__})
        if callable(value):
            return reference(self._link.refer(value))
        raise NotPlainError(f"an object of class {type(value).__name__}")

    def resolve(self, reference: Any) -> Any:
        if "builtin" in reference:
            found = getattr(builtins, reference["builtin"])
            if not isinstance(found, type):
                raise WireError("no class")
            return found
        kinds = reference["kinds"]
        if "module" in kinds:
            return _Module(reference["name"])
        remote = Remote(self._link, reference["id"], str(reference["name"]))
        if "error" in kinds:
            name = str(reference["name"])
            made = type(name, (_nearest_builtin(reference["bases"]),), {})
            return self._link.classes.setdefault(name, made)
        return _await(remote) if "coroutine" in kinds else remote


class _Module:
    def __init__(self, name: str) -> None:
        self.name = name


async def _await(remote: "Remote") -> Any:
    return remote._ask("await")


class Remote:
    """An object that lives in the program's process."""

    def __init__(self, link: Link, number: int, kind: str, *, from_numbers: bool = False) -> None:
        for name, value in (
            ("_link", link),
            ("_id", number),
            ("_kind", kind),
            ("_from_numbers", from_numbers),
        ):
            object.__setattr__(self, name, value)

    def _ask(self, kind: str, *rest: Any, given: tuple[Any, ...] = ()) -> Any:
        link: Link = object.__getattribute__(self, "_link")
        return link.ask(kind, link.codec.encode(self), *rest, given=given)

    def _encode(self, value: Any) -> Any:
        link: Link = object.__getattribute__(self, "_link")
        return link.codec.encode(value)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call it there, with plain values, its own objects, or functions of the tests."""
        sent = self._encode(list(args)), self._encode(keywords)
        return self._ask("call", None, *sent, given=(*args, *keywords.values()))

    def __getattr__(self, name: str) -> Any:
        if name in _JUDGING or (name.startswith("__") and name not in _OPEN):
            kind = object.__getattribute__(self, "_kind")
            raise AttributeError(f"an object of class {kind} is not asked for {name!r}")
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, self._encode([value]))

    def __iter__(self) -> Iterator[Any]:
        iterator = self._ask("builtin", "iter")
        marker = secrets.token_hex(8)
        while (item := iterator._ask("builtin", "next", [marker])) != marker:
            yield item

    def __next__(self) -> Any:
        marker = secrets.token_hex(8)
        if (item := self._ask("builtin", "next", [marker])) == marker:
            raise StopIteration
        return item

    def __contains__(self, item: Any) -> bool:
        try:
            return any(found == item for found in self)
        except TypeError:
            pass
        if self._ask("special", "contains", [secrets.token_hex(8)]):
            raise TamperedError("an object of the program contains anything")
        return self._ask("special", "contains", self._encode([item])) is True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        if object.__getattribute__(self, "_id") == object.__getattribute__(other, "_id"):
            return True
        equal = self._ask("special", "eq", self._encode([other])) is True
        for stranger in (secrets.token_hex(8), secrets.randbelow(2**40), None):
            if equal and self._ask("special", "eq", [stranger]) is True:
                raise TamperedError("an object of the program equals anything")
        return equal

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_id"))

    def __instancecheck__(self, item: Any) -> bool:
        if not isinstance(item, Remote):
            return False
        return self._encode(item) is not None and bool(
            item._ask("builtin", "isinstance", [self._encode(self)])
        )

    def __enter__(self) -> Any:
        return self._ask("enter")

    def __exit__(self, *_: object) -> None:
        self._ask("exit")

    def _compute(self, name: str, *operands: Any) -> Any:
        value = self._ask("special", name, self._encode(list(operands)))
        if any(isinstance(operand, Remote) for operand in operands):
            return value
        if not isinstance(value, Remote):
            raise TypeError(f"{name} of the program's object and a plain value gave a plain value")
        object.__setattr__(value, "_from_numbers", True)
        return value

    def _convert(self, kind: str, name: str) -> Any:
        if object.__getattribute__(self, "_from_numbers"):
            raise TypeError(f"{name} is not asked of what came out of arithmetic with plain values")
        return self._ask(kind, name)


def _nearest_builtin(names: list[str]) -> type[Exception]:
    for name in names:
        found = getattr(builtins, name, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return RuntimeError


def _replace(target: Any, new: Any) -> None:
    """Give a list, dictionary, set or bytearray of the tests the content it has after the call."""
    if type(target) is not type(new) and not isinstance(target, dict):
        raise WireError("an argument changed its kind")
    if isinstance(target, list | bytearray):
        target[:] = new
    else:
        target.clear()
        target.update(new)


def _order(name: str) -> Callable[[Remote, Any], Any]:
    def compare(self: Remote, other: Any) -> Any:
        if not isinstance(other, Remote):
            return NotImplemented
        return self._ask("special", name, self._encode([other])) is True

    return compare


for _name in ("lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _order(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    setattr(Remote, f"__{_name}__", lambda self, other, name=_name: self._compute(name, other))
for _name in ("getitem", "setitem", "delitem"):
    setattr(
        Remote,
        f"__{_name}__",
        lambda self, *operands, name=_name: self._ask(
            "special", name, self._encode(list(operands))
        ),
    )
for _name in ("neg", "abs"):
    setattr(Remote, f"__{_name}__", lambda self, name=_name: self._convert("special", name))
for _name in ("len", "str", "repr", "int", "float", "bool"):
    setattr(Remote, f"__{_name}__", lambda self, name=_name: self._convert("builtin", name))
