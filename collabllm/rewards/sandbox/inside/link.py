"""The tests' end of the pipes to the program: questions, answers, and functions called back."""

import inspect
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, BinaryIO, ClassVar

from collabllm.rewards.sandbox.inside.errors import ErrorClasses, make_error
from collabllm.rewards.sandbox.inside.wire import Codec, WireError, receive, reference, send

_ALIASES = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot"}


class FatalError(BaseException):
    """Ends the tests; `raised` keeps the first, should they catch it."""

    raised: ClassVar[list["FatalError"]] = []

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.raised.append(self)


class TamperedError(FatalError):
    """The program was seen cheating."""


class NotPlainError(FatalError):
    """The tests hand over what has no plain form; no fault of the program."""


class LimitError(FatalError):
    """The tests do with an object of the program what cannot be asked across the pipe."""


class ProgramEndedError(FatalError):
    """The program's process is gone, or sends what is no message."""


class Link:
    """Asks the program's process.

    Attributes:
        own_classes: The tests use classes of the program, so their values may go to its objects.
        num_asked: How many questions there were.
    """

    def __init__(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        make_remote: Callable[["Link", int, str], Any],
        *,
        own_classes: bool,
    ) -> None:
        self.own_classes, self.num_asked = own_classes, 0
        self._reader, self._writer = reader, writer
        self._callbacks: list[Callable[..., Any]] = []
        self._raised: list[BaseException] = []
        self.classes = ErrorClasses()
        self.codec = _TestsCodec(self, make_remote)

    def load(self, wanted: list[str]) -> tuple[dict[str, Any], str | None]:
        """Wait for the program's end, and return what it has of some names, and its error."""
        kind, names, error = self._receive()
        if kind != "loaded":
            raise ProgramEndedError("no answer to the first question")
        bound = {name: self._bind(name, names[name]) for name in wanted if name in names}
        return {name: value for name, value in bound.items() if value is not None}, error

    def _bind(self, name: str, encoded: Any) -> Any:
        value = self.codec.decode(encoded)
        if not isinstance(value, Module):
            return value
        real = value.name if value.name in (name, _ALIASES.get(name)) else None
        return __import__(real, fromlist=["x"]) if real and find_spec(real) else None

    def refer(self, function: Callable[..., Any]) -> Any:
        """Number a function of the tests, so that the program may call it."""
        if function not in self._callbacks:
            self._callbacks.append(function)
        told = {"name": str(getattr(function, "__name__", "function")), "doc": function.__doc__}
        return {"callback": self._callbacks.index(function), **told}

    def function(self, number: int) -> Callable[..., Any]:
        """Return a function of the tests by its number."""
        return self._callbacks[number]

    def ask(self, *question: Any, given: tuple[Any, ...] = ()) -> Any:
        """Ask, serve what the program asks meanwhile, and return its value or raise its error."""
        self.num_asked += 1
        self._send(question)
        while (answer := self._receive())[0] == "callback":
            self._send(self._call_back(*answer[1:]))
        sys.stdout.write(str(answer.pop()))
        if answer[0] == "raise":
            raise self._to_error(answer[1])
        _, value, changed, same = answer
        for idx, new in changed:
            _replace(given[idx], self.codec.decode(new))
        return self.codec.decode(value) if same is None else given[same]

    def _send(self, message: Any) -> None:
        try:
            send(self._writer, message)
        except OSError as error:
            raise ProgramEndedError("the program ended") from error

    def _receive(self) -> Any:
        try:
            return receive(self._reader)
        except (WireError, OSError) as error:
            raise ProgramEndedError(str(error)) from error

    def _call_back(self, number: int, values: Any, named: Any) -> list[Any]:
        try:
            function = self._callbacks[number]
            result = function(*self.codec.decode(values), **self.codec.decode(named))
        except Exception as error:
            self._raised.append(error)
            kind = next(kind for kind in type(error).__mro__ if self.codec.knows(kind))
            told = {"class": self.codec.encode(kind), "args": self.codec.encode(list(error.args))}
            return ["raise", {**told, "origin": len(self._raised) - 1}]
        return ["value", self.codec.encode(result)]

    def _to_error(self, told: dict[str, Any]) -> BaseException:
        if told["origin"] is not None:
            return self._raised[int(told["origin"])]
        error = make_error(self.classes.find(told["class"]), self.codec.decode(told["args"]))
        held = {name: self.codec.decode(value) for name, value in told["held"].items()}
        error.__dict__.update(held, _told_text=told["text"])
        if isinstance(error, StopIteration):  # would end a loop of the tests without a word
            return RuntimeError("the program raised StopIteration")
        return error


class _TestsCodec(Codec):
    def __init__(self, link: Link, make_remote: Callable[[Link, int, str], Any]) -> None:
        self._link, self._make_remote = link, make_remote
        self._remotes: dict[int, Any] = {}  # one for each object, so that `is` works
        self._held: dict[tuple[int, str], Any] = {}

    def knows(self, value: Any) -> bool:
        """Tell whether the program has a class of errors, too."""
        return value.__module__ == "builtins" or self._link.classes.number_of(value) is not None

    def encode(self, value: Any) -> Any:
        return self.refer(value.its_object) if isinstance(value, Held) else super().encode(value)

    def hold(self, plain: Any, reference: Any) -> Any:
        base = next((kind for kind in (int, float, str, tuple) if isinstance(plain, kind)), None)
        if base is None or isinstance(plain, bool):
            raise WireError("no plain value")
        its_object = self._remote(int(reference["id"]), str(reference["name"]))
        made = type(str(reference["name"]), (Held, type(plain)), {"its_object": its_object})
        return self._held.setdefault((int(reference["id"]), repr(plain)), base.__new__(made, plain))

    def refer(self, value: Any) -> Any:
        number = next((n for n, remote in self._remotes.items() if remote is value), None)
        if number is None and isinstance(value, type):
            number = self._link.classes.number_of(value)
        if number is not None:
            return reference({"id": number})
        if isinstance(value, type) and value.__module__ == "builtins":
            return reference({"builtin": value.__name__})
        if inspect.iscoroutine(value):
            raise LimitError("the tests hand on a coroutine of the program")
        if callable(value):
            return reference(self._link.refer(value))
        raise NotPlainError(f"an object of class {type(value).__name__}")

    def resolve(self, reference: Any) -> Any:
        if "callback" in reference:
            return self._link.function(reference["callback"])
        if "builtin" in reference:
            found = getattr(__import__("builtins"), reference["builtin"])
            if not isinstance(found, type):
                raise WireError("no class")
            return found
        kinds = reference["kinds"]
        if "module" in kinds:
            return Module(str(reference["name"]))
        if "error" in kinds:
            return self._link.classes.find(reference["class"])
        number = int(reference["id"])
        remote = self._remote(number, str(reference["name"]))
        return _await(self._link, number) if "coroutine" in kinds else remote

    def _remote(self, number: int, name: str) -> Any:
        if number not in self._remotes:
            self._remotes[number] = self._make_remote(self._link, number, name)
        return self._remotes[number]


class Held:
    """Beside `int`, `float`, `str` or `tuple`: a value whose class is the program's own.

    It is what arrived and compares as such; only what its plain class lacks is asked for.
    """

    its_object: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.its_object, name)


class Module:
    """A module that the program has imported."""

    def __init__(self, name: str) -> None:
        self.name = name


async def _await(link: Link, number: int) -> Any:
    return link.ask("await", reference({"id": number}))


def _replace(target: Any, new: Any) -> None:
    """Give an argument of the tests the content that it has after the call."""
    if type(target) is not type(new) and not isinstance(target, dict):
        raise ProgramEndedError("an argument changed its kind")
    if isinstance(target, list | bytearray):
        target[:] = new
    elif isinstance(target, dict | set):
        target.clear()
        target.update(new)
    elif target.shape != new.shape or target.dtype != new.dtype:
        raise LimitError("an array changed its shape in place")
    else:
        target[...] = new
