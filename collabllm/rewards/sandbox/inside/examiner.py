"""The tests' process: keeps tests, expected values and verdict, and asks the program's process.

It runs in a sandbox of its own, since tests come out of a data set, too.
"""

import ast
import os
import sys
import types
from typing import Any, BinaryIO

from collabllm.rewards.sandbox.inside.link import (
    FatalError,
    LimitError,
    Link,
    NotPlainError,
    TamperedError,
)
from collabllm.rewards.sandbox.inside.remote import Remote
from collabllm.rewards.sandbox.inside.wire import send

_MARK = "__an_assertion_runs__"
_CHECKING = ("assert", "raises", "fail")


def main(task: dict[str, Any], status: BinaryIO) -> None:
    """Run the tests, and report one verdict."""
    reader, writer = os.fdopen(task["read_fd"], "rb"), os.fdopen(task["write_fd"], "wb")
    link = Link(reader, writer, Remote, own_classes=task["own_classes"])
    verdict, reason = _examine(task, link)
    send(status, {"verdict": verdict, "reason": reason[:500]})
    os._exit(0)


def _examine(task: dict[str, Any], link: Link) -> tuple[str, str]:
    told = ""
    failure: BaseException | None = None
    num_checks = 0
    try:
        names, error = link.load(task["names"])
        told = f"; the program ended with {error}" if error else ""
        num_checks = _run_tests(task, names)
    except BaseException as raised:
        failure = raised
    failure = FatalError.raised[0] if FatalError.raised else failure  # tests can catch everything
    match failure:
        case TamperedError():
            return "tampered", str(failure)
        case NotPlainError():
            return "missing", f"the tests hand over {failure}: give them as a unittest class"
        case LimitError():
            return "missing" if link.own_classes else "failed", str(failure)
        case BaseException():
            return "failed", f"{type(failure).__name__}: {failure}{told}"
    if not link.num_asked and all(isinstance(v, Remote | types.ModuleType) for v in names.values()):
        return "missing", "the tests ask nothing of the program"
    return ("passed", "") if num_checks else ("failed", "no assertion of the tests has run")


def _run_tests(task: dict[str, Any], names: dict[str, Any]) -> int:
    """Run the tests as a script, and return how many of their assertions were come to."""
    marks: list[None] = []
    module = types.ModuleType("__main__")
    module.__dict__.update(names, **{_MARK: lambda: marks.append(None)})
    sys.modules["__main__"] = module
    tree = _Marked().visit(ast.parse(task["test"]))
    tree.body += ast.parse(task["start"]).body
    exec(compile(ast.fix_missing_locations(tree), "tests.py", "exec"), module.__dict__)
    return len(marks)


class _Marked(ast.NodeTransformer):
    """Puts a mark before each assertion, and takes out who would run the file by a library."""

    def visit_If(self, node: ast.If) -> Any:
        """Count a condition that raises, too."""
        text = ast.unparse(node)
        if "__name__" in ast.unparse(node.test) and (
            "unittest.main(" in text or "pytest.main(" in text
        ):
            return None
        raising = any(isinstance(item, ast.Raise) for item in node.body)
        return self._mark(self.generic_visit(node), checks=raising)

    def visit_Try(self, node: ast.Try) -> Any:
        """Count the error that is awaited where the tests fail without one."""
        if any(_fails(part) for item in (*node.body, *node.orelse) for part in ast.walk(item)):
            for handler in node.handlers:
                handler.body = [*ast.parse(f"{_MARK}()").body, *handler.body]
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> Any:
        """Count it."""
        return self._mark(node, checks=True)

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Count calls such as `numpy.testing.assert_allclose(…)`."""
        return self._mark(node, checks=_is_check(node.value))

    def visit_With(self, node: ast.With) -> Any:
        """Count `with pytest.raises(…)`."""
        checks = any(_is_check(item.context_expr) for item in node.items)
        return self._mark(self.generic_visit(node), checks=checks)

    def _mark(self, node: Any, *, checks: bool) -> Any:
        return [*ast.parse(f"{_MARK}()").body, node] if checks else node


def _fails(node: ast.AST) -> bool:
    """Tell whether a statement is `assert False` or `raise …`."""
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant) and not node.test.value
    return isinstance(node, ast.Raise)


def _is_check(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and any(word in ast.unparse(node.func) for word in _CHECKING)
