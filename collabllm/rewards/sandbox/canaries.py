"""Tests that must fail, mixed into a unittest file that has to live with the program.

A canary is one of the tests with one assertion made wrong. The file is run twice, in processes that
share nothing: each test stands in one of them as it is and in the other one as a canary, by
chance. So a program never sees the two side by side, and to have each test pass where it is right
and fail where it is wrong it has to know the answers.
"""

import ast
import copy
import random
from dataclasses import dataclass

from collabllm.rewards.sandbox.spoil import spoil
from collabllm.rewards.sandbox.written_tests import (
    Function,
    parse_tests,
    tests_of,
    unittest_classes,
)

_PROVES_NOTHING = ("skip", "expectedfailure")


@dataclass(frozen=True)
class MixedTests:
    """A test file with canaries: its source, the tests' names in order, and which must fail."""

    source: str
    tests: list[str]
    canaries: frozenset[str]


def mix_canaries(source: str, rng: random.Random) -> tuple[MixedTests, MixedTests]:
    """Make two files of a unittest file: each test is a canary in one of them, by a coin.

    Tests get new names and a random order. A test that may be skipped or is expected to fail is
    left out, since a program can bring either about. One in which nothing can be made wrong stands
    in both files as it is; if that is so for all, they get a wrong line at their end.

    Args:
        source: Python, with one or more classes that derive from a `TestCase`.
        rng: Gives the choice, the names and the order.

    Raises:
        ValueError: If no class has a test that shows something.
    """
    tree = parse_tests(source)
    cases = list(unittest_classes(tree))
    found = [(i, test) for i, case in enumerate(cases) for test in tests_of(case)]
    found = [pair for pair in found if not _may_be_skipped(cases[pair[0]], pair[1])]
    if not found:
        raise ValueError("each test of the unittest file may be skipped or is expected to fail")
    wrong = [_spoilt(test, rng) for _, test in found]
    if not any(wrong):
        wrong = [_with_wrong_end(test, rng) for _, test in found]
    rows = [(i, test, bad) for (i, test), bad in zip(found, wrong, strict=True)]
    coins = [rng.random() < 0.5 for _ in rows]  # so of n tests it takes 2n lucky guesses
    first = [(i, t, bad if coin else None) for (i, t, bad), coin in zip(rows, coins, strict=True)]
    other = [(i, t, None if coin else bad) for (i, t, bad), coin in zip(rows, coins, strict=True)]
    return _mix(tree, first, rng), _mix(tree, other, rng)


def _mix(
    tree: ast.Module, rows: list[tuple[int, Function, Function | None]], rng: random.Random
) -> MixedTests:
    """Return a file with the given tests in its classes: the spoilt one of a row where there is."""
    tree, rows = copy.deepcopy(tree), copy.deepcopy(rows)
    cases = list(unittest_classes(tree))
    for case in cases:
        names = {test.name for test in tests_of(case)}
        case.body = [item for item in case.body if getattr(item, "name", None) not in names]
    rng.shuffle(rows)
    tests, canaries = [], set()
    for number, (idx, right, wrong) in enumerate(rows, 1):
        test = wrong or right
        test.name = f"test_case_{number}"
        cases[idx].body.append(test)
        tests.append(f"{cases[idx].name}.{test.name}")
        if wrong:
            canaries.add(tests[-1])
    for case in cases:
        case.body = case.body or [ast.Pass()]
    return MixedTests(ast.unparse(ast.fix_missing_locations(tree)), tests, frozenset(canaries))


def _may_be_skipped(case: ast.ClassDef, test: Function) -> bool:
    fixtures = [item for item in case.body if getattr(item, "name", "").startswith("setUp")]
    looked_at = [*case.decorator_list, *fixtures, *test.decorator_list, *test.body]
    text = "\n".join(ast.unparse(item) for item in looked_at).lower()
    return any(word in text for word in _PROVES_NOTHING)


def _spoilt(test: Function, rng: random.Random) -> Function | None:
    other = copy.deepcopy(test)
    return other if spoil(other.body, rng) else None


def _with_wrong_end(test: Function, rng: random.Random) -> Function:
    other = copy.deepcopy(test)
    other.body.append(ast.parse(f"self.assertEqual({rng.randrange(9)}, 'x')").body[0])
    return other
