"""Canaries look like tests, fail for right programs, and say nothing of a test that is skipped."""

import ast
import random

import pytest

from collabllm.rewards.sandbox.canaries import is_unittest, mix_canaries
from collabllm.rewards.sandbox.verdict import examine

SOURCE = """
import unittest
class TestCases(unittest.TestCase):
    def test_sum(self):
        self.assertEqual(f(1), 2)
    def test_close(self):
        self.assertAlmostEqual(f(1), 2.3, delta=5)
    def test_raises(self):
        with self.assertRaises(TypeError):
            f(None)
    def test_loop(self):
        for x in ():
            self.assertEqual(f(x), x + 1)
    def helper(self):
        return 1
"""


def _methods(source):
    (case,) = [item for item in ast.parse(source).body if isinstance(item, ast.ClassDef)]
    return [item for item in case.body if isinstance(item, ast.FunctionDef)]


def test_names_and_order_do_not_tell_a_canary():
    mixed = mix_canaries(SOURCE, random.Random(0))
    names = [method.name for method in _methods(mixed.source) if method.name != "helper"]

    assert len(mixed.canaries) == 3
    assert names == [f"test_case_{i}" for i in range(1, 8)]
    assert mixed.tests == [f"TestCases.{name}" for name in names]
    orders = {tuple(mix_canaries(SOURCE, random.Random(i)).canaries) for i in range(20)}
    assert len(orders) > 5


@pytest.mark.parametrize("seed", range(6))
def test_a_right_program_fails_every_canary(seed):
    mixed = mix_canaries(SOURCE, random.Random(seed))
    space = {"f": lambda x: x + 1}
    exec(compile(mixed.source, "tests", "exec"), space)

    for name in mixed.tests:
        method = name.partition(".")[2]
        result = space["TestCases"](method).run()
        assert result.wasSuccessful() == (name not in mixed.canaries), method


def test_another_expected_value_stands_where_one_is_written_out():
    one = "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        "
    mixed = mix_canaries(one + "self.assertEqual(f(), {'a': [1, 'xyz']})", random.Random(1))
    first, second = (ast.unparse(method.body[0]) for method in _methods(mixed.source))

    assert first != second
    assert {first[:24], second[:24]} == {"self.assertEqual(f(), {'"}


def test_tests_that_are_skipped_for_all_are_no_tampering():
    skipped = (
        "import unittest\nclass TestCases(unittest.TestCase):\n"
        "    @unittest.skipIf(True, 'not here')\n"
        "    def test_a(self):\n        self.assertEqual(f(), 1)\n"
    )
    assert examine("def f():\n    return 1", skipped).outcome == "missing"


def test_only_classes_of_the_kind_are_unittest_files():
    assert is_unittest(SOURCE)
    assert not is_unittest("class TestCases:\n    pass")
    with pytest.raises(ValueError, match="no test"):
        mix_canaries("class T(TestCase):\n    pass", random.Random(0))
