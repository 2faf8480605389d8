"""The program under test: runs it as a module, then answers calls with plain data.

It shares its process with the program, so nothing that it says is trusted: the tests, the expected
values and the verdict are in another process (`examiner.py`).
"""

import builtins
import contextlib
import inspect
import io
import os
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from collabllm.rewards.sandbox.inside.errors import describe_class, describe_error, to_error
from collabllm.rewards.sandbox.inside.wire import Codec, own_value, receive, reference, send

MODULE = (
    "__test__"  # the name that BigCodeBench's own harness gives; no `__main__`, so no guards run
)
_PRINTED_CHARACTERS = 64 * 1024
_CHANGEABLE = (list, dict, set, bytearray)
_IMMUTABLE = (int, float, str, tuple)


def load_program(program: str) -> tuple[dict[str, Any], BaseException | None]:
    """Run a program as a module that can be imported, and return its names and its error.

    What was defined before an error stays: a call at the end that reads input or a missing file
    does not undo the function above it.
    """
    path = Path.cwd() / f"{MODULE}.py"
    path.write_text(program, encoding="utf-8")
    sys.path.insert(0, str(path.parent))
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module
    try:
        exec(compile(program, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        return module.__dict__, error
    return module.__dict__, None


class _ProgramCodec(Codec):
    """Objects stay here and are numbered; functions of the tests are called back."""

    def __init__(self, call_back: Callable[..., Any]) -> None:
        self.objects: dict[int, Any] = {}
        self._call_back = call_back
        self._stand_ins: dict[int, Callable[..., Any]] = {}

    def refer(self, value: Any) -> Any:
        for number, function in self._stand_ins.items():
            if value is function:
                return reference({"callback": number})
        if isinstance(value, type) and value.__module__ == "builtins":
            return reference({"builtin": value.__name__})
        self.objects[id(value)] = value
        kinds = ["object", *(name for name, test in _KINDS.items() if test(value))]
        found = {"id": id(value), "kinds": kinds, "name": type(value).__name__}
        if "error" in kinds:
            found["class"] = describe_class(self, value)
        if isinstance(value, types.ModuleType):
            found["name"] = value.__name__
        return reference(found)

    def encode(self, value: Any) -> Any:
        plain = super().encode(value)
        if isinstance(value, _IMMUTABLE) and type(value).__module__ == MODULE:
            self.objects[id(value)] = value
            return own_value(plain, {"id": id(value), "name": type(value).__name__})
        return plain

    def resolve(self, reference: Any) -> Any:
        if "callback" in reference:
            return self._stand_ins.setdefault(reference["callback"], self._stand_in(reference))
        if "builtin" in reference:
            return getattr(builtins, reference["builtin"])
        return self.objects[reference["id"]]

    def _stand_in(self, told: Any) -> Callable[..., Any]:
        def function(*values: Any, **named: Any) -> Any:
            return self._call_back(told["callback"], values, named)

        function.__name__ = function.__qualname__ = told["name"]
        function.__doc__ = told["doc"]
        return function


_KINDS: dict[str, Callable[[Any], bool]] = {
    "error": lambda v: isinstance(v, type) and issubclass(v, BaseException),
    "module": lambda v: isinstance(v, types.ModuleType),
    "coroutine": inspect.iscoroutine,
}


def main(task: dict[str, Any], status: BinaryIO) -> None:
    """Serve until the tests' side hangs up."""
    status.close()
    reader, writer = os.fdopen(task["read_fd"], "rb"), os.fdopen(task["write_fd"], "wb")

    def call_back(number: int, values: Any, named: Any) -> Any:
        sent = codec.encode(list(values)), codec.encode(dict(named))
        send(writer, ["callback", number, *sent])
        while (answer := receive(reader))[0] not in ("value", "raise"):
            send(writer, _answer(codec, *answer))  # the function asks in its turn
        if answer[0] == "raise":
            raise to_error(codec, answer[1])
        return codec.decode(answer[1])

    codec = _ProgramCodec(call_back)
    names, error = load_program(task["program"])
    told = {name: _try_encode(codec, names[name]) for name in task["names"] if name in names}
    send(writer, ["loaded", told, error and f"{type(error).__name__}: {error}"])
    while True:
        send(writer, _answer(codec, *receive(reader)))


def _try_encode(codec: Codec, value: Any) -> Any:
    try:
        return codec.encode(value)
    except Exception:
        return codec.refer(value)


def _answer(codec: Codec, kind: str, target: Any, *rest: Any) -> list[Any]:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            item = codec.decode(target)
            args = codec.decode(rest[1]) if len(rest) > 1 else []
            keywords = codec.decode(rest[2]) if len(rest) > 2 else {}
            given = [*args, *keywords.values()]
            before = [codec.encode(v) if _is_changeable(v) else None for v in given]
            value = _perform(kind, item, rest[0] if rest else None, args, keywords)
            same = next(
                (i for i, v in enumerate(given) if v is value and before[i] is not None), None
            )
            after = [codec.encode(v) if _is_changeable(v) else None for v in given]
            changed = [[i, new] for i, new in enumerate(after) if new != before[i]]
            answer = ["value", codec.encode(value), changed, same]
    except (Exception, SystemExit) as error:
        answer = ["raise", describe_error(codec, error)]
    return [*answer, printed.getvalue()[:_PRINTED_CHARACTERS]]


def _perform(kind: str, item: Any, name: Any, args: list[Any], keywords: dict[str, Any]) -> Any:
    match kind:
        case "call":
            return item(*args, **keywords)
        case "get":
            return getattr(item, name)
        case "set":
            return setattr(item, name, *args)
        case "enter":
            return type(item).__enter__(item)
        case "exit":
            return type(item).__exit__(item, None, None, None)
        case "await":
            return import_module("asyncio").run(item)
        case "reflected":
            return getattr(import_module("operator"), name)(*args, item)
    return getattr(import_module(kind), name)(item, *args)  # operator, builtins, copy


def _is_changeable(value: Any) -> bool:
    return isinstance(value, _CHANGEABLE) or type(value).__name__ == "ndarray"
