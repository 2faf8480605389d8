"""Tests that must fail, mixed into a unittest file that has to live with the program.

A canary is a copy of one of the tests in which one assertion is wrong: another expected value where
it is written out, else the opposite assertion. A program that makes tests pass by any other means
than being right passes it, too. All tests get new names and a random order, so that only who knows
the answer can tell a canary from a test.
"""

import ast
import copy
import random
from dataclasses import dataclass

_OPPOSITES = {
    "assertTrue": "assertFalse",
    "assertEqual": "assertNotEqual",
    "assertAlmostEqual": "assertNotAlmostEqual",
    "assertIn": "assertNotIn",
    "assertIs": "assertIsNot",
    "assertIsNone": "assertIsNotNone",
    "assertIsInstance": "assertNotIsInstance",
    "assertGreater": "assertLessEqual",
    "assertLess": "assertGreaterEqual",
    "assertRegex": "assertNotRegex",
}
_OPPOSITES |= {value: key for key, value in _OPPOSITES.items()}
_EQUALS = {"assertEqual", "assertEquals", "assertListEqual", "assertDictEqual", "assertTupleEqual"}
_EQUALS |= {"assertSequenceEqual", "assertSetEqual", "assertAlmostEqual", "assertMultiLineEqual"}
_RAISES = {"assertRaises", "assertRaisesRegex"}
_MAX_CANARIES = 3
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class MixedTests:
    """A test file with canaries: its source, the tests' names in order, and which must fail."""

    source: str
    tests: list[str]
    canaries: frozenset[str]


def is_unittest(source: str) -> bool:
    """Tell whether a test file has a class of unittest's kind."""
    return bool(_test_classes(_parse(source)))


def mix_canaries(source: str, rng: random.Random) -> MixedTests:
    """Rename and shuffle the tests of a unittest file, with canaries among them.

    Args:
        source: Python, with one or more classes that derive from a `TestCase`.
        rng: Gives the choice, the names and the order.

    Raises:
        ValueError: If no class has a test.
    """
    tree = _parse(source)
    found = [(case, test) for case in _test_classes(tree) for test in _tests(case)]
    if not found:
        raise ValueError("the unittest file has no test")
    for case in _test_classes(tree):
        case.body = [item for item in case.body if item not in _tests(case)]
    plain = [pair for pair in found if not _expects_failure(pair[1])] or found
    wrong = [
        (case, _spoil(test, rng))
        for case, test in rng.sample(plain, min(len(plain), _MAX_CANARIES))
    ]
    mixed = [(case, test, False) for case, test in found]
    mixed += [(case, test, True) for case, test in wrong]
    rng.shuffle(mixed)
    tests, canaries = [], set()
    for idx, (case, test, must_fail) in enumerate(mixed, 1):
        test.name = f"test_case_{idx}"
        case.body.append(test)
        tests.append(f"{case.name}.{test.name}")
        if must_fail:
            canaries.add(tests[-1])
    return MixedTests(ast.unparse(ast.fix_missing_locations(tree)), tests, frozenset(canaries))


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"the tests are no Python: {error}") from error


def _test_classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [
        item
        for item in tree.body
        if isinstance(item, ast.ClassDef)
        and any(ast.unparse(base).endswith("TestCase") for base in item.bases)
    ]


def _tests(case: ast.ClassDef) -> list[_Function]:
    return [item for item in case.body if _is_test(item)]  # type: ignore[misc]


def _is_test(item: ast.stmt) -> bool:
    return isinstance(item, _Function) and item.name.startswith("test")


def _expects_failure(test: _Function) -> bool:
    return any("expectedFailure" in ast.unparse(mark) for mark in test.decorator_list)


def _spoil(test: _Function, rng: random.Random) -> _Function:
    """Return a copy with one assertion wrong; a wrong one at the end where none can be spoilt."""
    spoilt = copy.deepcopy(test)
    calls = list(_straight_calls(spoilt.body))
    rng.shuffle(calls)
    if not any(_spoil_call(call, rng) for call in calls):
        spoilt.body.append(ast.parse(f"self.assertEqual({rng.randrange(9)}, 'x')").body[0])
    return spoilt


def _straight_calls(body: list[ast.stmt]) -> list[ast.Call]:
    """Return the calls `self.assert…` that run whenever the test runs to its end."""
    calls: list[ast.Call] = []
    for item in body:
        if isinstance(item, ast.With | ast.AsyncWith):
            raising = [part.context_expr for part in item.items]
            calls += [call for call in raising if _assertion(call)]  # type: ignore[misc]
            if not any(_assertion(call) in _RAISES for call in raising):
                calls += _straight_calls(item.body)
        elif isinstance(item, ast.Expr) and _assertion(item.value):
            calls.append(item.value)  # type: ignore[arg-type]
    return calls


def _assertion(node: ast.expr) -> str:
    """Return the name of the method in `self.NAME(…)`, if it asserts; else ''."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return ""
    name, owner = node.func.attr, node.func.value
    own = isinstance(owner, ast.Name) and owner.id == "self"
    return name if own and name.startswith("assert") else ""


def _spoil_call(call: ast.Call, rng: random.Random) -> bool:
    assert isinstance(call.func, ast.Attribute)
    name = call.func.attr
    if name in _RAISES and call.args:
        call.args[0] = ast.Name("StopAsyncIteration", ast.Load())
        return True
    for side in reversed(_equal_sides(call, name)):
        other = _other_value(side, rng)
        if other is not None:
            _put(call, side, other)
            return True
    if name not in _OPPOSITES:
        return False
    call.func.attr = _OPPOSITES[name]
    return True


def _equal_sides(call: ast.Call, name: str) -> list[ast.expr]:
    """Return the two expressions that an assertion says are equal, if it does."""
    exact = name != "assertAlmostEqual" or (len(call.args) == 2 and not call.keywords)
    if name in _EQUALS and exact:
        return call.args[:2]
    node = call.args[0] if name == "assertTrue" and call.args else None
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
        return [node.left, node.comparators[0]]
    return []


def _put(call: ast.Call, old: ast.expr, new: ast.expr) -> None:
    for holder in (call, *call.args):
        if isinstance(holder, ast.Compare):
            holder.left = new if holder.left is old else holder.left
            holder.comparators = [new if item is old else item for item in holder.comparators]
        if isinstance(holder, ast.Call):
            holder.args = [new if item is old else item for item in holder.args]


def _other_value(node: ast.expr, rng: random.Random) -> ast.expr | None:
    """Return a literal of the same look and another value, or None where it is no literal."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    other = _different(value, rng)
    return None if other is None else ast.parse(repr(other), mode="eval").body


def _different(value: object, rng: random.Random) -> object:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + rng.randint(1, 4)
        case str() if value:
            idx = rng.randrange(len(value))
            letters = [letter for letter in "aeinorst1234" if letter != value[idx]]
            return value[:idx] + rng.choice(letters) + value[idx + 1 :]
        case str():
            return rng.choice("aeinorst")
        case list() | tuple() if value:
            idx = rng.randrange(len(value))
            new = _different(value[idx], rng)
            return None if new is None else type(value)([*value[:idx], new, *value[idx + 1 :]])
        case dict() if value:
            key = rng.choice(list(value))
            new = _different(value[key], rng)
            return None if new is None else {**value, key: new}
    return None
