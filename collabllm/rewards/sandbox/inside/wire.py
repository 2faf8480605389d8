"""Plain data between two processes that do not trust each other: JSON, a message a line.

No pickles. A value that has no plain form (a function, an object of the program's own class)
stays where it is, and a reference travels; `Codec.refer` and `Codec.resolve` say what that means on
each side. A subclass of int, str, list … arrives as the plain value that it holds.
"""

import base64
import collections
import datetime
import decimal
import fractions
import json
import math
import pathlib
import sys
import uuid
from collections.abc import Callable
from typing import Any, BinaryIO

MAX_MESSAGE_BYTES = 16 * 2**20
_TAG, _VALUE = "~", "v"
_DICTS: dict[str, Any] = {"OrderedDict": collections.OrderedDict, "Counter": collections.Counter}
_LISTS: dict[str, Any] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
}
_TEXTS: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    bytes: ("bytes", lambda v: base64.b64encode(v).decode(), base64.b64decode),
    bytearray: (
        "bytearray",
        lambda v: base64.b64encode(v).decode(),
        lambda text: bytearray(base64.b64decode(text)),
    ),
    complex: ("complex", repr, complex),
    decimal.Decimal: ("decimal", str, decimal.Decimal),
    fractions.Fraction: ("fraction", str, fractions.Fraction),
    datetime.datetime: ("datetime", lambda v: v.isoformat(), datetime.datetime.fromisoformat),
    datetime.date: ("date", lambda v: v.isoformat(), datetime.date.fromisoformat),
    uuid.UUID: ("uuid", str, uuid.UUID),
    pathlib.PosixPath: ("path", str, pathlib.Path),
    pathlib.PurePosixPath: ("pure path", str, pathlib.PurePosixPath),
    datetime.time: ("time", lambda v: v.isoformat(), datetime.time.fromisoformat),
}
_FROM_TEXT = {name: from_text for name, _, from_text in _TEXTS.values()}
_ARRAY_KINDS = "biufcSUMm"  # what numpy holds without Python objects


class WireError(Exception):
    """The other side sent something that is no message."""


class Codec:
    """Turns values into JSON and back."""

    def refer(self, value: Any) -> Any:
        """Return the reference, as JSON, of a value that has no plain form."""
        raise WireError(f"{type(value).__name__} is no plain value")

    def resolve(self, reference: Any) -> Any:
        """Return what a reference of the other side stands for here."""
        raise WireError("no references here")

    def hold(self, plain: Any, reference: Any) -> Any:
        """Return a plain value of a class of the program's own, which the reference stands for."""
        raise WireError("no references here")

    def encode(self, value: Any) -> Any:
        """Return the JSON form of a value."""
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 2**53 else _tagged("int", hex(value))
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else _tagged("float", repr(float(value)))
        kind = type(value)
        if kind in _TEXTS:
            name, to_text, _ = _TEXTS[kind]
            return _tagged(name, to_text(value))
        if kind is datetime.timedelta:
            return _tagged("timedelta", [value.days, value.seconds, value.microseconds])
        if kind is range:
            return _tagged("range", [value.start, value.stop, value.step])
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            items = [self.encode(item) for item in value]
            return _tagged("namedtuple", [kind.__name__, list(value._fields), items])
        return self._encode_container(value)

    def _encode_container(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if isinstance(value, dict):
            pairs = [[self.encode(k), self.encode(v)] for k, v in value.items()]
            name = type(value).__name__
            return _tagged(name if name in _DICTS else "dict", pairs)
        for name, known in _LISTS.items():
            if isinstance(value, known):
                return _tagged(name, [self.encode(item) for item in value])
        library = type(value).__module__.partition(".")[0]
        if library in ("numpy", "pandas") and library in sys.modules:
            return self._encode_table(value)
        return self.refer(value)

    def _encode_table(self, value: Any) -> Any:
        kind = type(value).__name__
        if kind == "DataFrame":
            columns = [self.encode(value.iloc[:, idx]) for idx in range(value.shape[1])]
            return _tagged("frame", [self.encode(list(value.columns)), columns])
        if kind == "Series":
            values = self.encode(value.tolist())
            index = self.encode(value.index.tolist())
            return _tagged("series", [values, index, str(value.dtype), self.encode(value.name)])
        if kind == "ndarray" and value.dtype.kind in _ARRAY_KINDS:
            array = [value.dtype.str, list(value.shape), self.encode(value.ravel().tolist())]
            return _tagged("array", array)
        if kind == "Timestamp":
            return self.encode(value.to_pydatetime())
        if kind == "Timedelta":
            return self.encode(value.to_pytimedelta())
        if hasattr(value, "dtype") and not getattr(value, "shape", None) and hasattr(value, "item"):
            item = value.item()
            return self.encode(item) if type(item) is not type(value) else self.refer(value)
        return self.refer(value)

    def decode(self, data: Any) -> Any:
        """Return the value of a JSON form.

        Raises:
            WireError: If it is none.
        """
        if isinstance(data, list):
            return [self.decode(item) for item in data]
        if not isinstance(data, dict):
            return data
        try:
            return self._decode_tagged(data[_TAG], data[_VALUE])
        except WireError:
            raise
        except Exception as error:
            raise WireError(f"no plain value: {error}") from error

    def _decode_tagged(self, name: str, value: Any) -> Any:
        if name == "ref":
            return self.resolve(value)
        if name == "own":
            return self.hold(self.decode(value[0]), value[1])
        if name == "dict" or name in _DICTS:
            pairs = ((self.decode(k), self.decode(v)) for k, v in value)
            if name == "Counter":
                return collections.Counter(dict(pairs))
            return _DICTS.get(name, dict)(pairs)
        if name in _LISTS:
            return _LISTS[name](self.decode(item) for item in value)
        if name in _FROM_TEXT:
            return _FROM_TEXT[name](value)
        if name == "namedtuple":
            kind, fields, items = value
            return collections.namedtuple(kind, fields)(*map(self.decode, items))
        simple: dict[str, Callable[[Any], Any]] = {
            "int": lambda text: int(text, 16),
            "float": float,
            "timedelta": lambda parts: datetime.timedelta(*parts),
            "range": lambda parts: range(*parts),
        }
        return simple[name](value) if name in simple else self._decode_table(name, value)

    def _decode_table(self, name: str, value: Any) -> Any:
        if name == "array":
            import numpy

            dtype, shape, items = value
            if numpy.dtype(dtype).kind not in _ARRAY_KINDS:
                raise WireError(f"an array of {dtype}")
            return numpy.array(self.decode(items), dtype=dtype).reshape(shape)
        import pandas

        if name == "series":
            values, index, dtype, label = value
            return pandas.Series(self.decode(values), self.decode(index), dtype, self.decode(label))
        if name == "frame":
            labels, columns = self.decode(value[0]), [self.decode(item) for item in value[1]]
            frame = pandas.concat(columns, axis=1) if columns else pandas.DataFrame()
            frame.columns = labels
            return frame
        raise WireError(f"unknown kind {name!r}")


def _tagged(name: str, value: Any) -> dict[str, Any]:
    return {_TAG: name, _VALUE: value}


def own_value(plain: Any, reference: Any) -> dict[str, Any]:
    """Return the JSON form of a plain value that is also an object of the program's."""
    return _tagged("own", [plain, reference])


def reference(value: Any) -> dict[str, Any]:
    """Return the JSON form of a reference."""
    return _tagged("ref", value)


def send(stream: BinaryIO, message: Any) -> None:
    """Write one message."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message.

    Raises:
        WireError: If the other side is gone, or sent no JSON or too much of it.
    """
    line = stream.readline(MAX_MESSAGE_BYTES)
    if not line.endswith(b"\n"):
        raise WireError("the program ended" if len(line) < MAX_MESSAGE_BYTES else "too long")
    try:
        return json.loads(line)
    except ValueError as error:
        raise WireError("no JSON") from error
