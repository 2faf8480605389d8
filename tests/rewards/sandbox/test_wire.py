"""Plain values come back as they were; nothing else comes at all."""

import collections
import datetime
import decimal
import fractions
import io
import json

import numpy
import pandas
import pytest

from collabllm.rewards.sandbox.inside.wire import Codec, WireError, receive

Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**70),
        1.5,
        float("inf"),
        "äé\n",
        b"\x00\xff",
        (1, [2, {"a": {3}}]),
        {(1, 2): "tuple as a key", None: 0},
        frozenset({1}),
        collections.Counter("aab"),
        collections.deque([1, 2]),
        Point(1, "y"),
        3 + 4j,
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        datetime.datetime(2024, 2, 29, 12, 0),
        datetime.timedelta(days=1, seconds=2),
        range(1, 9, 2),
    ],
    ids=repr,
)
def test_a_plain_value_comes_back_equal_and_of_its_kind(value):
    back = Codec().decode(json.loads(json.dumps(Codec().encode(value))))

    assert back == value
    assert type(back).__name__ == type(value).__name__


def test_arrays_and_tables_come_back():
    array = numpy.array([[1, 2], [3, 4]], dtype="int16")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=[5, 6])

    back = Codec().decode(json.loads(json.dumps(Codec().encode([array, frame]))))

    numpy.testing.assert_array_equal(back[0], array)
    assert back[0].dtype == array.dtype
    pandas.testing.assert_frame_equal(back[1], frame)


def test_a_subclass_arrives_as_what_it_holds():
    class Liar(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert Codec().decode(json.loads(json.dumps(Codec().encode(Liar(7))))) != 8


@pytest.mark.parametrize(
    "data", [{"~": "what", "v": 1}, {"v": 1}, {"~": "array", "v": ["O", [1], [1]]}, {"~": "int"}]
)
def test_what_is_no_value_is_refused(data):
    with pytest.raises(WireError):
        Codec().decode(data)


def test_an_object_is_no_plain_value():
    with pytest.raises(WireError, match="no plain value"):
        Codec().encode(object())


def test_a_message_that_breaks_off_is_refused():
    with pytest.raises(WireError, match="ended"):
        receive(io.BytesIO(b'["value"'))
