"""What a review of `pass_rate` found: right programs pass or are missing, cheats get nothing."""

import pytest

from collabllm.rewards.sandbox.run import isolation_error
from collabllm.rewards.sandbox.tier import Limits
from collabllm.rewards.sandbox.verdict import examine
from tests.rewards.sandbox.programs import cheat

pytestmark = pytest.mark.skipif(
    isolation_error() is not None, reason=f"no isolation: {isolation_error()}"
)
LIMITS = Limits(wall_s=60, memory_bytes=2**29)  # a machine under load imports pandas in 15 s
ONE_MORE = "def f(x):\n    return x + 1"
SAME = "def f(x):\n    return x"

# name: tests, a program that passes them, one that does not
DECIDED = {
    "an alias of TestCase": (
        "from unittest import TestCase as TC\nclass T(TC):\n"
        "    def test_f(self):\n        self.assertEqual(f(1), 2)",
        ONE_MORE,
        SAME,
    ),
    "an async test function": ("async def test_f():\n    assert f(1) == 2", ONE_MORE, SAME),
    "a run below the guard": (
        "def run():\n    assert f(1) == 2\nif __name__ == '__main__':\n    run()",
        ONE_MORE,
        SAME,
    ),
    "clean-up in the last line": (
        "import unittest, os, shutil\nclass T(unittest.TestCase):\n"
        + "".join(
            f"    def test_{i}(self):\n        os.mkdir('made')\n"
            f"        self.assertEqual(f({i}), {i + 1})\n"
            "        shutil.rmtree('made')\n"
            for i in range(3)
        ),
        ONE_MORE,
        SAME,
    ),
    "a function with keywords": (
        "assert f(lambda x, *, by: x * by) == 6",
        "def f(g):\n    return g(2, by=3)",
        "def f(g):\n    return 5",
    ),
    "a function that raises": (
        "class Own(Exception):\n    pass\n"
        "def g(x):\n    raise (Own if x else KeyError)('told')\n"
        "assert f(g, 0) == 'kept'\n"
        "try:\n    f(g, 1)\n    assert False\nexcept Own as error:\n"
        "    assert str(error) == 'told'",
        "def f(g, x):\n    try:\n        g(x)\n    except KeyError:\n        return 'kept'",
        "def f(g, x):\n    try:\n        g(x)\n    except Exception:\n        return 'kept'",
    ),
    "a function that asks the program": (
        "assert f(lambda x: h(x) + 1) == 5",
        "def h(x):\n    return x * 2\ndef f(g):\n    return g(2)",
        "def h(x):\n    return x\ndef f(g):\n    return g(2)",
    ),
    "the same function back": (
        "def g(x): pass\nassert f(g) is g",
        SAME,
        "def f(g):\n    return len",
    ),
    "a base class of the program's errors": (
        "try:\n    f(1)\n    assert False\nexcept Base as error:\n"
        "    assert error.code == 7 and str(error) == 'no: 1'\n"
        "assert issubclass(Base, LookupError)",
        "class Base(LookupError):\n    pass\nclass Special(Base):\n"
        "    def __init__(self, x, *, code):\n        self.x, self.code = x, code\n"
        "    def __str__(self):\n        return f'no: {self.x}'\n"
        "def f(x):\n    raise Special(x, code=7)",
        "class Base(LookupError):\n    pass\ndef f(x):\n    raise LookupError(x)",
    ),
    "an error of a library": (
        "import json\ntry:\n    f('{')\n    assert False\nexcept json.JSONDecodeError as error:\n"
        "    assert error.pos == 1",
        "import json\ndef f(x):\n    return json.loads(x)",
        "def f(x):\n    raise ValueError(x)",
    ),
    "numbers, texts and tuples with more to them": (
        "assert f(1) == 1 and f(1).name == 'LOW' and isinstance(f(1), Level)\n"
        "assert g(f(1)) == 'Level' and P(3, 4).norm() == 5.0 and P(3, 4) == (3, 4)",
        "import enum\nfrom typing import NamedTuple\n"
        "class Level(enum.IntEnum):\n    LOW = 1\n    HIGH = 2\n"
        "class P(NamedTuple):\n    x: int\n    y: int\n"
        "    def norm(self):\n        return (self.x ** 2 + self.y ** 2) ** 0.5\n"
        "f = Level\ndef g(x):\n    return type(x).__name__",
        "import enum\n"
        "class Level(enum.IntEnum):\n    LOW = 2\n    __eq__ = lambda *_: True\n"
        "class P(tuple):\n    norm = lambda self: 5.0\n"
        "    __new__ = lambda cls, *xy: tuple.__new__(cls, xy)\n"
        "f = lambda x: Level(2)\ng = lambda x: 'Level'",
    ),
    "an object of the same class": (
        "assert f(1) == P(1)",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "def f(x):\n    return P(x)",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "def f(x):\n    return P(x + 1)",
    ),
    "a decorator that keeps the name": (
        "@d\ndef g(x):\n    'told'\n    return x\n"
        "assert (g.__name__, g.__doc__, g(2)) == ('g', 'told', 4)",
        "import functools\ndef d(g):\n    @functools.wraps(g)\n"
        "    def h(x):\n        return 2 * g(x)\n    return h",
        "def d(g):\n    def h(x):\n        return 2 * g(x)\n    return h",
    ),
    "nothing but an error": (
        "try:\n    f(1)\n    assert False, 'no error'\nexcept ValueError:\n    pass",
        "def f(x):\n    raise ValueError",
        SAME,
    ),
    "an exit": (
        "try:\n    f(3)\n    assert False\nexcept SystemExit as error:\n    assert error.code == 3",
        "import sys\ndef f(x):\n    sys.exit(x)",
        "def f(x):\n    pass",
    ),
    "identity": (
        "assert Only() is Only()",
        "class Only:\n    def __new__(cls, made=[]):\n"
        "        made[:] = made or [object.__new__(cls)]\n"
        "        return made[0]",
        "class Only:\n    pass",
    ),
    "hashes": (
        "assert len({V(1), V(1), V(2)}) == 2",
        "class V:\n    def __init__(self, x):\n        self.x = x\n"
        "    def __eq__(self, o):\n        return isinstance(o, V) and self.x == o.x\n"
        "    def __hash__(self):\n        return hash(self.x)",
        "class V:\n    def __init__(self, x):\n        self.x = x",
    ),
    "reflected operators": (
        "assert (2 * V(3)).x == 6",
        "class V:\n    def __init__(self, x):\n        self.x = x\n"
        "    def __rmul__(self, n):\n        return V(n * self.x)",
        "class V:\n    def __init__(self, x):\n        self.x = x\n"
        "    def __rmul__(self, n):\n        return self",
    ),
    "the attributes of an object": (
        "assert vars(V(1)) == {'x': 1} and V(1).__dict__ == {'x': 1}",
        "class V:\n    def __init__(self, x):\n        self.x = x",
        "class V:\n    def __init__(self, x):\n        self.y = x",
    ),
    "copies": (
        "import copy\nv = V([1])\nw = copy.deepcopy(v)\nw.x.append(2)\n"
        "assert v is not w and copy.copy(v).x == [1]",
        "class V:\n    def __init__(self, x):\n        self.x = x",
        "class V:\n    def __init__(self, x):\n        self.x = x\n"
        "    def __copy__(self):\n        return V(0)",
    ),
    "a path": (
        "from pathlib import Path\nassert f('a') == Path('a') / 'b'",
        "from pathlib import Path\ndef f(x):\n    return Path(x, 'b')",
        "from pathlib import Path\ndef f(x):\n    return Path(x)",
    ),
    "an array changed in place": (
        "import numpy as np\na = np.array([1, 2])\nf(a)\nassert a.tolist() == [2, 3]",
        "def f(a):\n    a += 1",
        "def f(a):\n    a + 1",
    ),
    "an empty list that comes back": ("x = []\nassert f(x) is x", SAME, "def f(x):\n    return []"),
}


@pytest.mark.parametrize("name", DECIDED)
def test_the_right_program_passes_and_the_wrong_one_fails(name):
    test, right, wrong = DECIDED[name]
    libraries = {"numpy"}

    found = examine(right, test, libraries=libraries, limits=LIMITS)
    assert (found.outcome, found.reason) == ("passed", "")
    assert examine(wrong, test, libraries=libraries, limits=LIMITS).outcome == "failed"


@pytest.mark.parametrize("seed", range(6))
def test_a_wrong_program_that_gives_what_a_canary_wants_has_failed(monkeypatch, seed):
    test = "import unittest\nclass T(unittest.TestCase):\n"
    test += "".join(f"    def test_{i}(self):\n        self.assertEqual(f({i}), 0)\n" for i in "12")
    monkeypatch.setattr("secrets.randbits", lambda bits: seed)
    monkeypatch.setattr("collabllm.rewards.sandbox.other_value._other_int", lambda *_: 1)

    found = examine("def f(x):\n    return 1", test, limits=LIMITS)
    assert (found.outcome, "1 != 0" in found.reason) == ("failed", True)


# name: tests that cannot be run across a pipe, and a program that is right
NOT_DECIDED = {
    "a subclass of the program's class": (
        "class W(V):\n    pass\nassert W(1).x == 1",
        "class V:\n    def __init__(self, x):\n        self.x = x",
    ),
    "a comparison with a plain value": (
        "assert Money(3) == 3",
        "class Money(object):\n    def __init__(self, x):\n        self.x = x\n"
        "    def __eq__(self, o):\n        return self.x == o",
    ),
    "what an empty list passes": (
        "import numpy as np\nassert np.allclose(f(3), 2.0)\n"
        "assert all(x == y for x, y in zip(f(2), [2, 2]))",
        "def f(n):\n    return [2] * n",
    ),
    "what nothing is asked of": ("def helper():\n    assert f(1) == 2", ONE_MORE),
}


@pytest.mark.parametrize("name", NOT_DECIDED)
def test_what_cannot_be_decided_is_missing(name):
    test, right = NOT_DECIDED[name]

    found = examine(right, test, limits=LIMITS)
    assert found.outcome == "missing"
    assert found.reason
    assert examine(right, test, reference=right, limits=LIMITS).outcome == "missing"


@pytest.mark.parametrize(
    "test",
    [
        "open('x', 'w').write('told')\nassert f('x') == 'told'",
        "import random\nrandom.seed(3)\nx = random.random()\nrandom.seed(3)\nassert f(0) == x",
    ],
    ids=["a file that both use", "a seed that both use"],
)
def test_what_the_two_processes_do_not_share_is_missing_by_the_reference(test):
    right = "import random\ndef f(x):\n    return open(x).read() if x else random.random()"

    assert examine(right, test, reference=right, limits=LIMITS).outcome == "missing"


# name: tests, and a program that would be its own judge
JUDGES = {
    "contains what it is asked for": (
        "assert 3 in f(1)",
        "class A:\n    def __contains__(self, x):\n        return isinstance(x, int) and x < 9**9\n"
        "def f(x):\n    return A()",
    ),
    "equals what it is asked for": (
        "import pandas as pd\nassert f(1).equals(pd.DataFrame({'a': [1]}))",
        "class A:\n    def equals(self, x):\n        return True\ndef f(x):\n    return A()",
    ),
    "is no different": (
        "from datetime import date\nassert (f(1) - date(2024, 1, 2)).days == 0",
        "class A:\n    days = 0\n    def __sub__(self, x):\n        return self\n"
        "def f(x):\n    return A()",
    ),
    "is near enough": (
        "assert abs(f(1) - 0.5) < 1e-6",
        "class A:\n    def __sub__(self, x):\n        return 0.0\ndef f(x):\n    return A()",
    ),
    "is no different from the other side": (
        "assert abs(0.5 - f(1)) < 1e-6",
        "class A:\n    def __rsub__(self, x):\n        return 0.0\ndef f(x):\n    return A()",
    ),
    "is caught by a bare except": (
        "try:\n    ok = f(1) == 3\nexcept:\n    ok = True\nassert ok",
        "class A:\n    pass\ndef f(x):\n    return A()",
    ),
    "leaves where any error is expected": (
        "try:\n    f(1)\n    ok = False\nexcept Exception:\n    ok = True\nassert ok",
        "import os\ndef f(x):\n    os._exit(0)",
    ),
    "answers for names of the tests' side": (
        "for i in range(3):\n    assert abs(f(i) - i) < 1",
        cheat("answers for names of the tests' side", "f"),
    ),
    "ends a loop of the tests": (
        "cases = [(1, 2), (2, 3)]\nassert all(map(lambda case: f(case[0]) == case[1], cases))",
        "def f(x):\n    raise StopIteration",
    ),
    "speaks with the voice of the tests": (
        "assert f(1) == 2",
        "E = type('NotPlainError', (Exception,), {})\n"
        "E.__module__ = 'collabllm.rewards.sandbox.inside.link'\n"
        "def f(x):\n    raise E('no plain value')",
    ),
    "asserts nothing by an empty loop": (
        "for x in f(3):\n    assert x > 0",
        "def f(x):\n    return []",
    ),
}


@pytest.mark.parametrize("name", JUDGES)
def test_a_program_is_not_its_own_judge(name):
    test, cheat = JUDGES[name]

    assert examine(cheat, test, libraries={"pandas"}, limits=LIMITS).outcome == "failed"


def test_an_object_turns_no_failure_into_a_missing_value():
    test = "s = Stack()\ns.push(1)\nassert s.pop() == 1"
    stack = "class Stack:\n    def push(self, x):\n        self.x = x\n"
    stack += "    def pop(self):\n        return {}"

    assert examine(stack.format("Stack()"), test, limits=LIMITS).outcome == "missing"
    found = examine(stack.format("Stack()"), test, reference=stack.format("self.x"), limits=LIMITS)
    assert found.outcome == "failed"
