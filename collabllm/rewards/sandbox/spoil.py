"""Make one assertion of a test wrong, so that it looks as right as it did.

Who sees it must not tell it from a right one without the answer: another expected value where one
is written out, else another class or exception, else a value where one is worked out, else the
opposite assertion.
"""

import ast
import builtins
import random
from collections.abc import Callable, Iterator

from collabllm.rewards.sandbox.other_value import other_literal

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
_EQUALS |= {"assert_array_equal", "assert_equal", "assert_frame_equal", "assert_series_equal"}
_PLACES = {"assertAlmostEqual", "assertAlmostEquals"}
_NEARLY = _PLACES | {"assert_allclose", "assert_array_almost_equal", "assert_almost_equal"}
_EQUALS |= _NEARLY
_RAISES = {"assertRaises", "assertRaisesRegex"}
_ERRORS = ["ValueError", "TypeError", "KeyError", "IndexError", "ZeroDivisionError"]
_ERRORS += ["AttributeError", "FileNotFoundError", "RuntimeError", "NotImplementedError"]
_RARE_ERRORS = ["OverflowError", "EOFError", "BufferError", "TimeoutError", "ConnectionError"]
_KINDS = {"str", "float", "list", "dict", "tuple", "set", "int", "bool"}
_MAKERS = {"set", "frozenset", "tuple", "list", "dict", "Counter", "OrderedDict", "Decimal"}
_MAKERS |= {"Fraction", "array", "Series", "DataFrame", "datetime", "date", "Path"}
_STRANGERS = dict.fromkeys(("", "assertTrue", "assertEqual", "assertEquals"), "{}") | {
    "assertAlmostEqual": "{}",
    "assertSequenceEqual": "[{}]",
    "assertListEqual": "[{}]",
    "assertTupleEqual": "({},)",
    "assertSetEqual": "{{{}}}",
    "assertDictEqual": "{{{}: 1}}",
    "assertMultiLineEqual": "'{}'",
}  # what stands for a value that is worked out, by assertion
_MIN_TEXT = 4  # a shorter one may be in the result by chance


def spoil(body: list[ast.stmt], rng: random.Random) -> bool:
    """Make one assertion wrong, in place; return whether there was one."""
    checks = list(_straight_checks(body))
    rng.shuffle(checks)
    ways: tuple[Callable[[ast.expr], bool], ...] = (
        lambda check: _change_expected(check, body, rng),
        lambda check: _change_class(check, rng),
        lambda check: _expect_stranger(check, rng),
        _turn_round,
    )
    for way in ways:
        for statement, check in checks:
            if way(check):
                return True
            if isinstance(statement, ast.Assert) and way is _turn_round:
                statement.test = ast.UnaryOp(ast.Not(), statement.test)
                return True
    return False


def _straight_checks(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.expr]]:
    """Yield the assertions that are made whenever the test runs to its end."""
    for item in body:
        if isinstance(item, ast.With | ast.AsyncWith):
            calls = [part.context_expr for part in item.items]
            yield from ((item, call) for call in calls if _asserts(call))
            if not any(_asserts(call) in _RAISES for call in calls):
                yield from _straight_checks(item.body)
        elif isinstance(item, ast.For) and _surely_runs(item):
            yield from _straight_checks(item.body)
        elif isinstance(item, ast.Expr) and _asserts(item.value):
            yield item, item.value
        elif isinstance(item, ast.Assert):
            yield item, item.test
        if isinstance(item, ast.If) and any(isinstance(n, ast.Return) for n in ast.walk(item)):
            return


def _surely_runs(loop: ast.For) -> bool:
    """Tell whether all of a loop's body runs at least once, by its text."""
    if any(isinstance(node, ast.Break | ast.Continue | ast.Return) for node in ast.walk(loop)):
        return False
    if isinstance(loop.iter, ast.List | ast.Tuple | ast.Set):
        return any(not isinstance(item, ast.Starred) for item in loop.iter.elts)
    if isinstance(loop.iter, ast.Call) and ast.unparse(loop.iter.func) == "range":
        ends = [node.value for node in loop.iter.args if isinstance(node, ast.Constant)]
        known = [end for end in ends if isinstance(end, int)]
        return 0 < len(known) == len(loop.iter.args) < 3 and len(range(*known)) > 0
    return False


def _asserts(node: ast.expr) -> str:
    """Return the name of the method in `self.NAME(…)`, if it asserts; else ''."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return ""
    return node.func.attr if node.func.attr.startswith("assert") else ""


def _change_expected(check: ast.expr, body: list[ast.stmt], rng: random.Random) -> bool:
    for side in reversed(_equal_sides(check)):
        holder = side
        if isinstance(side, ast.Name):
            assigned = _only_assignment(side.id, body)
            if assigned is None:
                continue
            holder = assigned.value
        maker = ast.unparse(holder.func).rpartition(".")[2] if isinstance(holder, ast.Call) else ""
        if maker in _MAKERS and isinstance(holder, ast.Call) and holder.args:
            holder = holder.args[0]
        other = other_literal(holder, rng)
        if other is not None:
            _become(holder, other)
            return True
    return False


def _equal_sides(check: ast.expr) -> list[ast.expr]:
    """Return the expressions of which an assertion says that they are equal, or one inside."""
    name = _asserts(check)
    if isinstance(check, ast.Call) and name:
        if name in _EQUALS:
            return [] if _is_loose(check, name) else check.args[:2]
        if name == "assertIn" and check.args and _is_long(check.args[0]):
            return check.args[:1]
        check = check.args[0] if name == "assertTrue" and check.args else ast.Constant(None)
    if isinstance(check, ast.Compare) and len(check.ops) == 1 and isinstance(check.ops[0], ast.Eq):
        return [check.left, check.comparators[0]]
    return []


def _is_loose(call: ast.Call, name: str) -> bool:
    """Tell whether another number could be near enough."""
    if name not in _NEARLY or not (call.args[2:] or call.keywords):
        return False
    values = [node.value for node in call.args[:2] if isinstance(node, ast.Constant)]
    large = any(isinstance(value, int | float) and abs(value) >= 1 for value in values)
    return not large or name not in _PLACES or any(word.arg != "places" for word in call.keywords)


def _is_long(node: ast.expr) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, str) and len(value) >= _MIN_TEXT


def _only_assignment(name: str, body: list[ast.stmt]) -> ast.Assign | None:
    """Return where a name gets its value, if that is all that is done with it but one use."""
    nodes = [node for item in body for node in ast.walk(item)]
    if sum(isinstance(node, ast.Name) and node.id == name for node in nodes) != 2:
        return None
    for item in body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == name:
            return item
    return None


def _expect_stranger(check: ast.expr, rng: random.Random) -> bool:
    """Expect a number that is no result where the expected value is worked out.

    The opposite assertion would be content with an object that equals anything.
    """
    sides, name = _equal_sides(check), _asserts(check)
    if (
        name in _PLACES
        and isinstance(check, ast.Call)
        and not any(word.arg == "delta" for word in check.keywords)
    ):
        sides = check.args[:2]  # a number of four digits is not near enough
    if len(sides) != 2 or name not in _STRANGERS:
        return False
    text = _STRANGERS[name].format(rng.randrange(1000, 10_000))
    _become(sides["expect" not in ast.unparse(sides[0])], ast.parse(text, mode="eval").body)
    return True


def _become(old: ast.expr, new: ast.expr) -> None:
    """Turn a node into another one where it stands."""
    old.__class__ = new.__class__
    old.__dict__.clear()
    old.__dict__.update(new.__dict__)


def _change_class(check: ast.expr, rng: random.Random) -> bool:
    name = _asserts(check)
    if not isinstance(check, ast.Call) or len(check.args) < 1 + (name == "assertIsInstance"):
        return False
    if name in _RAISES:
        check.args[0] = ast.Name(_other_error(ast.unparse(check.args[0]), rng), ast.Load())
        return True
    kind = ast.unparse(check.args[1]) if name == "assertIsInstance" else ""
    if kind not in _KINDS:
        return False
    near = {kind, *({"int", "bool"} if kind in ("int", "bool") else ())}
    check.args[1] = ast.Name(rng.choice(sorted(_KINDS - near)), ast.Load())
    return True


def _other_error(name: str, rng: random.Random) -> str:
    """Return an exception that is neither a base nor a subclass of the one expected."""
    expected = getattr(builtins, name, None)
    if not isinstance(expected, type) or expected in (Exception, BaseException):
        return rng.choice(_RARE_ERRORS)  # what is raised is not known
    known = {other: getattr(builtins, other) for other in _ERRORS}
    return rng.choice(
        [
            other
            for other, kind in known.items()
            if not issubclass(kind, expected) and not issubclass(expected, kind)
        ]
    )


def _turn_round(check: ast.expr) -> bool:
    name = _asserts(check)
    if name not in _OPPOSITES or not isinstance(check, ast.Call):
        return False
    assert isinstance(check.func, ast.Attribute)
    check.func.attr = _OPPOSITES[name]
    return True
