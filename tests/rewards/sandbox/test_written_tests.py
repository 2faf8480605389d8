"""Tests of which nothing would run are told before anything runs."""

import pytest

from collabllm.rewards.applicable import check_applicable
from collabllm.rewards.sandbox.written_tests import check_tests, names_classes
from collabllm.tasks import Task

CASE = "from unittest import TestCase, IsolatedAsyncioTestCase\nclass T(TestCase):\n"


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("def test_f(case):\n    assert f(case)", "test_f takes parameters"),
        ("def test_f():\n    yield f(1)\n    assert 0", "test_f is a generator"),
        (
            "class TestF:\n    def test_f(self):\n        assert f(1)",
            "TestF is no unittest.TestCase",
        ),
        ("print(f(1))", "assert nothing"),
        ("f(1) ==", "no Python"),
        (f"{CASE}    x = 1", "has no test"),
        (
            f"{CASE}    async def test_f(self):\n        assert f(1)",
            "test_f is async and T no Isolated",
        ),
        (f"{CASE}    def test_f(self, case):\n        assert f(1)", "test_f takes parameters"),
        (f"{CASE}    def test_f(self):\n        yield 1\n        assert f(1)", "is a generator"),
        (
            f"{CASE}    def test_f(self):\n        assert f(1)\ndef test_g(): pass",
            "test_g stands beside",
        ),
        (
            f"{CASE}    def test_f(self):\n        assert f(1)\nclass U(T): pass",
            "inherit the tests of T",
        ),
        (
            "class M:\n    def test_f(self):\n        self.assertEqual(f(1), 2)\n"
            "from unittest import TestCase\nclass T(M, TestCase): pass",
            "M is no unittest.TestCase",
        ),
        ("def check(candidate):\n    assert candidate(1)", "entry_point"),
        ("import no_such_library\nassert f(1)", "the tests need no_such_library"),
    ],
)
def test_a_test_that_would_never_run_is_told(test, reason):
    with pytest.raises(ValueError, match=reason):
        check_tests(test)


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1)",
        "import numpy\nnumpy.testing.assert_allclose(f(1), 2)",
        "if f(1) != 2:\n    raise ValueError",
        "async def test_f():\n    assert f(1)",
        "def test_f(case=3):\n    assert f(case)",
        "try:\n    import no_such_library\nexcept ImportError:\n    pass\nassert f(1)",
        "import unittest as u\nclass T(u.IsolatedAsyncioTestCase):\n"
        "    async def test_f(self):\n        self.assertEqual(await f(1), 2)",
        "from unittest import TestCase as TC\nclass B(TC):\n    x = 1\n"
        "class T(B):\n    def test_f(self):\n        self.assertEqual(f(1), self.x)",
        "import unittest\nfrom unittest.mock import patch\nclass T(unittest.TestCase):\n"
        "    @patch('__test__.g')\n    def test_f(self, g):\n        self.assertEqual(f(1), 2)",
    ],
)
def test_what_runs_is_let_through(test):
    check_tests(test)


def test_a_build_is_told_of_useless_tests(caplog):
    tests = ["def test_f(case):\n    assert f(case)", "assert f(1) == 2"]
    tasks = [Task(str(i), "goal", metadata={"test": test}) for i, test in enumerate(tests)]

    check_applicable(["code->pass_rate"], tasks)
    check_applicable(["repetition"], tasks)

    (record,) = caplog.records
    assert (
        "no value for 1 of 2 tasks with tests, for example task 0: test_f takes" in record.message
    )


def test_a_class_is_known_by_its_name():
    assert names_classes("assert Stack().pop() == 1")
    assert names_classes("assert V(1) + V(2)")
    assert not names_classes("assert f(LIMIT) == 2")
    assert not names_classes("from datetime import date\nassert f(1) == date(2024, 1, 1)")
