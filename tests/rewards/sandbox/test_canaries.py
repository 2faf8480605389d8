"""Canaries look like tests, fail for right programs, and say nothing of a test that is skipped."""

import ast
import random
import re

import pytest

from collabllm.rewards.sandbox.canaries import mix_canaries
from collabllm.rewards.sandbox.other_value import other_literal
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
    for mixed in mix_canaries(SOURCE, random.Random(0)):
        names = [method.name for method in _methods(mixed.source) if method.name != "helper"]

        assert names == [f"test_case_{i}" for i in range(1, 5)]
        assert mixed.tests == [f"TestCases.{name}" for name in names]
    orders = {tuple(mix_canaries(SOURCE, random.Random(i))[0].canaries) for i in range(20)}
    assert len(orders) > 5


def test_no_test_stands_beside_its_canary_and_each_is_once_either():
    lines = [
        f"    def test_{i}(self):\n        self.assertEqual(f({i}), {i * 7})\n" for i in range(5)
    ]
    source = "import unittest\nclass T(unittest.TestCase):\n" + "".join(lines)
    first, second = mix_canaries(source, random.Random(1))

    def asked(mixed, canaries):
        by_name = {f"T.{method.name}": method for method in _methods(mixed.source)}
        calls = [by_name[n].body[0].value for n in mixed.tests if (n in mixed.canaries) == canaries]
        return {ast.unparse(call.args[0]) for call in calls}

    assert asked(first, canaries=True) == asked(second, canaries=False)
    assert asked(first, canaries=False) == asked(second, canaries=True)
    assert len(asked(first, canaries=True) | asked(second, canaries=True)) == 5


@pytest.mark.parametrize("seed", range(6))
def test_a_right_program_fails_every_canary(seed):
    for mixed in mix_canaries(SOURCE, random.Random(seed)):
        space = {"f": lambda x: x + 1}
        exec(compile(mixed.source, "tests", "exec"), space)

        for name in mixed.tests:
            method = name.partition(".")[2]
            result = space["TestCases"](method).run()
            assert result.wasSuccessful() == (name not in mixed.canaries), method


@pytest.mark.parametrize(
    ("value", "look"),
    [
        ("42", r"\d+"),
        ("3.25", r"\d+\.\d+"),
        ("'room 12'", r"'room \d\d'"),
        ("'one two'", "'two one'"),
        ("'x'", "'[a-z]'"),
        ("[1, 'ab']", r"\[\d+, '\w\w'\]"),
        ("{'a': (1, True)}", r"\{'a': \(\d+, \w+\)\}"),
        ("{1, 2}", r"\{\d+, \d+\}"),
    ],
)
def test_another_value_has_the_same_look(value, look):
    node = ast.parse(value, mode="eval").body
    others = {ast.unparse(other_literal(node, random.Random(seed))) for seed in range(40)}

    assert ast.unparse(node) not in others
    assert all(re.fullmatch(look, other) for other in others), others


def test_another_number_is_as_often_below_as_above():
    node = ast.Constant(42)
    others = [other_literal(node, random.Random(seed)).value for seed in range(1000)]

    assert 450 < sum(other < 42 for other in others) < 550


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        (
            "self.assertRaises(ValueError, f)",
            r"self.assertRaises\((Key|Index|Type|Zero|Attr|File|Ru|NotI)",
        ),
        ("self.assertIsInstance(f(), dict)", r"self.assertIsInstance\(f\(\), \w+\)"),
        ("self.assertIn('some text', f())", r"self.assertIn\('text some', f\(\)\)"),
        ("x = [5]\n        self.assertEqual(f(), x)", r"x = \[\d+\]\n"),
        (
            "self.assertEqual(f(), Counter({'a': 3}))",
            r"self.assertEqual\(f\(\), Counter\(\{'a': \d\}",
        ),
        ("assert f() == 3", r"assert f\(\) == \d"),
        ("self.assertEqual(f(), g())", r"self.assertEqual\(f\(\), \d{4}\)"),
        ("self.assertEqual(expected, f())", r"self.assertEqual\(\d{4}, f\(\)\)"),
        ("self.assertListEqual(f(), g())", r"self.assertListEqual\(f\(\), \[\d{4}\]\)"),
        ("self.assertTrue(f() == g())", r"self.assertTrue\(f\(\) == \d{4}\)"),
        ("self.assertAlmostEqual(f(), g(), 3)", r"self.assertAlmostEqual\(f\(\), \d{4}, 3\)"),
        ("assert f() == g()", r"assert f\(\) == \d{4}"),
        ("for x in (1, 2):\n            self.assertEqual(f(x), x)", r"for .*\n.*f\(x\), \d{4}\)"),
        ("for x in range(3):\n            self.assertEqual(f(x), 5)", r"for .*\n.*f\(x\), \d+\)"),
        ("self.assertTrue(f())", r"self.assertFalse\(f\(\)\)"),
        ("self.assertAlmostEqual(f(), 2.5, 2)", r"self.assertAlmostEqual\(f\(\), \d\.\d, 2\)"),
    ],
)
def test_a_wrong_assertion_looks_like_a_right_one(body, allowed):
    source = f"import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        {body}\n"

    for seed in range(20):
        mixed = mix_canaries(source, random.Random(seed))
        (spoilt,) = (m for m in mixed if m.canaries)
        (method,) = _methods(spoilt.source)
        text = "\n".join(map(ast.unparse, method.body))
        assert re.match(allowed, text), text
        assert text != "\n".join(map(ast.unparse, ast.parse(body.replace("        ", "")).body))


def test_what_may_be_skipped_is_not_run():
    kept = "    def test_b(self):\n        self.assertEqual(f(), 1)\n"
    skipped = (
        "import unittest\nclass TestCases(unittest.TestCase):\n"
        "    @unittest.skipIf(True, 'not here')\n"
        "    def test_a(self):\n        self.assertEqual(f(), 1)\n"
    )
    leaves = "import unittest\ndef f():\n    raise unittest.SkipTest('later')"

    assert examine("def f():\n    return 1", skipped).outcome == "missing"
    assert examine("def f():\n    return 1", skipped + kept).outcome == "passed"
    assert examine(leaves, skipped + kept).outcome == "failed"


@pytest.mark.parametrize(
    "lines",
    ["self.assertEqual(f(3), sum([3, 1]))", "for x in (1, 2):\n            assert f(x) == x + 1"],
)
def test_a_number_that_equals_anything_tampers_also_where_the_expected_value_is_worked_out(lines):
    test = f"import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n        {lines}\n"
    cheat = "class A(int):\n    __eq__ = lambda *_: True\ndef f(x):\n    return A()"

    assert examine(cheat, test).outcome == "tampered"
    assert examine("def f(x):\n    return x + 1", test).outcome == "passed"
    assert examine("def f(x):\n    return x", test).outcome == "failed"


def test_a_file_of_one_test_is_run_until_guessing_is_no_use(monkeypatch):
    test = "import unittest\nclass T(unittest.TestCase):\n"
    test += "    def test_f(self):\n        self.assertEqual(f(1), 2)\n"
    rounds = []

    def count(source, rng):
        rounds.append(mix_canaries(source, rng))
        return rounds[-1]

    monkeypatch.setattr("collabllm.rewards.sandbox.verdict.mix_canaries", count)

    assert examine("def f(x):\n    return x + 1", test).outcome == "passed"
    assert len(rounds) == 4
    assert examine("def f(x):\n    return x", test).outcome == "failed"
    assert len(rounds) == 5
