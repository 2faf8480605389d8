"""A task's tests as text: of which kind they are, and whether all of them would run at all."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TypeGuard

from collabllm.rewards.program_names import imported_libraries, wanted_names

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SYNC, _ASYNC = "TestCase", "IsolatedAsyncioTestCase"
_SAYS_ASSERT = ("assert", "raises", "exit", "fail")


def parse_tests(source: str) -> ast.Module:
    """Return the tree of a test file.

    Raises:
        ValueError: If it is no Python.
    """
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"the tests are no Python: {error}") from error


def check_tests(source: str, entry_point: str = "") -> None:
    """Check that a right program could be told from a wrong one, as far as the text can say.

    Raises:
        ValueError: If a test would never run, nothing is asserted, or a library is not here.
    """
    tree = parse_tests(source)
    cases = unittest_classes(tree)
    _check_imports(tree)
    functions = [item for item in tree.body if _is_test(item)]
    if cases and functions:
        raise ValueError(f"{functions[0].name} stands beside unittest classes and would not run")
    for function in functions:
        _check_runs(function, num_given=0)
    for item in tree.body:
        if isinstance(item, ast.ClassDef) and item not in cases and tests_of(item):
            raise ValueError(f"{item.name} is no unittest.TestCase, so its tests would not run")
    _check_classes(cases)
    if _find_check(tree) and not entry_point:
        raise ValueError("the tests need single_turn_metadata.entry_point")
    if not any(_can_fail(node) for node in ast.walk(tree)):
        raise ValueError("the tests assert nothing")


def unittest_classes(tree: ast.Module) -> dict[ast.ClassDef, bool]:
    """Return the classes of unittest's kind, and whether each awaits its tests."""
    names = {_SYNC: False, _ASYNC: True, "AsyncTestCase": True}
    for item in tree.body:
        if isinstance(item, ast.ImportFrom):
            names |= {a.asname: names[a.name] for a in item.names if a.asname and a.name in names}
    found: dict[ast.ClassDef, bool] = {}
    for item in (item for item in tree.body if isinstance(item, ast.ClassDef)):
        bases = [ast.unparse(base).rpartition(".")[2] for base in item.bases]
        kinds = [names.get(base, False) for base in bases if base in names or base.endswith(_SYNC)]
        if kinds:
            found[item] = names[item.name] = any(kinds)
    return found


def tests_of(case: ast.ClassDef) -> list[Function]:
    """Return the test methods of a class; of two with one name Python keeps the later."""
    return list({item.name: item for item in case.body if _is_test(item)}.values())


def starting_calls(tree: ast.Module, entry_point: str) -> str:
    """Return the source that calls the functions of a test file that is none of unittest's."""
    calls = [f"check({entry_point})"] if _find_check(tree) else []
    for item in tree.body:
        if isinstance(item, ast.AsyncFunctionDef) and _is_test(item):
            calls.append(f"__import__('asyncio').run({item.name}())")
        elif _is_test(item):
            calls.append(f"{item.name}()")
    return "\n".join(calls)


def names_classes(test: str, entry_point: str = "") -> bool:
    """Tell whether tests use classes of the program."""
    return any(map(names_class, wanted_names(test, entry_point)))


def names_class(name: str) -> bool:
    """Tell a class from a function or a constant, by how Python's names are written."""
    return name[0].isupper() and (len(name) == 1 or not name.isupper())


def is_installed(library: str) -> bool:
    """Tell whether a top-level module can be imported here."""
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def _check_imports(tree: ast.Module) -> None:
    sure = [item for item in tree.body if not isinstance(item, ast.Try)]
    named = imported_libraries(ast.unparse(ast.Module(sure, [])))
    for library in sorted(named - {"__test__"}):
        if not is_installed(library):
            raise ValueError(f"the tests need {library}, which is not installed")


def _check_classes(cases: dict[ast.ClassDef, bool]) -> None:
    bases = {ast.unparse(base) for case in cases for base in case.bases}
    for case, awaits in cases.items():
        if case.name in bases and tests_of(case):
            raise ValueError(f"other classes inherit the tests of {case.name}: repeat them there")
        for test in tests_of(case):
            if isinstance(test, ast.AsyncFunctionDef) and not awaits:
                raise ValueError(f"{test.name} is async and {case.name} no {_ASYNC}: it never runs")
            _check_runs(test, num_given=1)
    if cases and not any(map(tests_of, cases)):
        raise ValueError("the unittest file has no test")


def _check_runs(test: Function, num_given: int) -> None:
    wanted = test.args.posonlyargs + test.args.args
    missing = len(wanted) - num_given - len(test.args.defaults)
    missing += sum(default is None for default in test.args.kw_defaults)
    if missing > 0 and not (num_given and test.decorator_list):  # `patch` gives some
        raise ValueError(f"{test.name} takes parameters, which only pytest would give")
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own_nodes(test)):
        raise ValueError(f"{test.name} is a generator, so it never runs")


def _own_nodes(item: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(item):
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            yield node
            yield from _own_nodes(node)


def _can_fail(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert | ast.Raise):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    return any(word in name.lower() for word in _SAYS_ASSERT)


def _is_test(item: ast.AST) -> TypeGuard[Function]:
    return isinstance(item, Function) and item.name.startswith("test")


def _find_check(tree: ast.Module) -> bool:
    return any(isinstance(item, ast.FunctionDef) and item.name == "check" for item in tree.body)
