"""Objects of the program as the tests see them: every use is a question to its process.

The program must not learn what a test expects, and must not be asked whether it is right. So a
comparison with a plain value is not asked, nor is arithmetic with one, unless the tests use classes
of the program; then its result may not become a number. What is not asked ends the tests
(`LimitError`). Objects that claim to equal anything are found by probing.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from collabllm.rewards.sandbox.inside.link import Held, LimitError, Link, TamperedError
from collabllm.rewards.sandbox.inside.wire import reference

_JUDGING = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint", "equals", "isin"}
_JUDGING |= {name for name in dir(str) if name.startswith("is")}
_OPEN = {"__name__", "__doc__", "__dict__", "__annotations__"}


class Remote:
    """An object that lives in the program's process."""

    __slots__ = ("_from_plain", "_id", "_kind", "_link")  # no `__dict__`: that is asked for, too
    _link: Link
    _id: int
    _kind: str
    _from_plain: bool

    def __init__(self, link: Link, number: int, kind: str) -> None:
        for name, value in (("_link", link), ("_id", number), ("_kind", kind)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_from_plain", False)

    def _ask(self, kind: str, *rest: Any, given: tuple[Any, ...] = ()) -> Any:
        return self._link.ask(kind, reference({"id": self._id}), *rest, given=given)

    def _encode(self, value: Any) -> Any:
        return self._link.codec.encode(value)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call it there, with plain values, its own objects, or functions of the tests."""
        sent = self._encode(list(args)), self._encode(keywords)
        return self._ask("call", None, *sent, given=(*args, *keywords.values()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _OPEN:
            raise AttributeError(f"an object of class {self._kind} is not asked for {name!r}")
        if name in _JUDGING and not self._link.own_classes:
            raise LimitError(f"{name} of an object of class {self._kind} would be its own judge")
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, self._encode([value]))

    def __delattr__(self, name: str) -> None:
        self._ask("builtins", "delattr", [name])

    def __iter__(self) -> Iterator[Any]:
        iterator = self._ask("builtins", "iter")
        if not isinstance(iterator, Remote):  # an iterator of Python's own arrives as it is
            raise TypeError(f"iter() of an object of class {self._kind} is no iterator")
        marker = secrets.token_hex(8)
        while (item := iterator._ask("builtins", "next", [marker])) != marker:
            yield item

    def __next__(self) -> Any:
        marker = secrets.token_hex(8)
        if (item := self._ask("builtins", "next", [marker])) == marker:
            raise StopIteration
        return item

    def __contains__(self, item: Any) -> bool:
        try:
            return any(found is item or found == item for found in self)
        except TypeError:
            if not self._link.own_classes:
                self._refuse("contains")
        if self._ask("operator", "contains", [secrets.token_hex(8)]):
            raise TamperedError("an object of the program contains anything")
        return self._ask("operator", "contains", self._encode([item])) is True

    def __eq__(self, other: object) -> bool:
        if other is None or self is other:
            return other is not None
        if not isinstance(other, Remote):
            self._refuse("==")
        equal = self._ask("operator", "eq", self._encode([other])) is True
        for stranger in (secrets.token_hex(8), secrets.randbelow(2**40), None):
            if equal and self._ask("operator", "eq", [stranger]) is True:
                raise TamperedError("an object of the program equals anything")
        return equal

    def __hash__(self) -> int:
        return int(self._ask("builtins", "hash"))

    def __instancecheck__(self, item: Any) -> bool:
        item = item.its_object if isinstance(item, Held) else item
        if not isinstance(item, Remote):
            return False
        return bool(item._ask("builtins", "isinstance", [self._encode(self)]))

    def __subclasscheck__(self, item: Any) -> bool:
        return isinstance(item, Remote) and bool(
            item._ask("builtins", "issubclass", [self._encode(self)])
        )

    def __enter__(self) -> Any:
        return self._ask("enter")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._refuse("an error inside `with`")
        self._ask("exit")

    def __deepcopy__(self, _: object) -> Any:
        return self._ask("copy", "deepcopy")

    def _refuse(self, what: str) -> NoReturn:
        raise LimitError(f"{what} with an object of class {self._kind} cannot be asked")

    def _compute(self, kind: str, name: str, operand: Any) -> Any:
        if isinstance(operand, Remote):
            return self._ask(kind, name, self._encode([operand]))
        if not self._link.own_classes:
            self._refuse(name)
        value = self._ask(kind, name, self._encode([operand]))
        if not isinstance(value, Remote):
            self._refuse(f"a plain result of {name}")
        object.__setattr__(value, "_from_plain", True)
        return value

    def _convert(self, module: str, name: str) -> Any:
        if self._from_plain:
            self._refuse(f"{name} after arithmetic")
        return self._ask(module, name)


def _order(name: str) -> Callable[[Remote, Any], Any]:
    def compare(self: Remote, other: Any) -> Any:
        if not isinstance(other, Remote):
            self._refuse(name)
        return self._ask("operator", name, self._encode([other])) is True

    return compare


def _arithmetic(kind: str, name: str) -> Callable[[Remote, Any], Any]:
    return lambda self, operand: self._compute(kind, name, operand)


def _conversion(module: str, name: str) -> Callable[[Remote], Any]:
    return lambda self: self._convert(module, name)


def _item(name: str) -> Callable[..., Any]:
    return lambda self, *operands: self._ask("operator", name, self._encode(list(operands)))


def _refusal(name: str) -> Callable[..., NoReturn]:
    return lambda self, *_: self._refuse(name)


for _name in ("lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _order(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    setattr(Remote, f"__{_name}__", _arithmetic("operator", _name))
    setattr(Remote, f"__r{_name}__", _arithmetic("reflected", _name))
for _name in ("and", "or", "xor"):
    setattr(Remote, f"__{_name}__", _arithmetic("operator", f"{_name}_"))
    setattr(Remote, f"__r{_name}__", _arithmetic("reflected", f"{_name}_"))
for _name in ("getitem", "setitem", "delitem"):
    setattr(Remote, f"__{_name}__", _item(_name))
for _name in ("neg", "pos", "invert", "index"):
    setattr(Remote, f"__{_name}__", _conversion("operator", _name))
for _name in ("abs", "len", "str", "repr", "int", "float", "complex", "bool", "reversed"):
    setattr(Remote, f"__{_name}__", _conversion("builtins", _name))
Remote.__copy__ = _conversion("copy", "copy")  # type: ignore[attr-defined]
for _name in ("mro_entries", "reduce_ex", "aiter", "anext", "aenter", "aexit", "round", "await"):
    setattr(Remote, f"__{_name}__", _refusal(_name))
Remote.__doc__ = property(lambda self: self._ask("get", "__doc__"))  # type: ignore[assignment]
