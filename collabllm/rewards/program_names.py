"""Which names a piece of Python defines, uses, imports and expects from elsewhere."""

import ast
import builtins
from collections.abc import Mapping
from typing import Any, TypeGuard


def defined_names(source: str) -> set[str]:
    """Return the names that a program has at its top level; none where it is no Python."""
    found: set[str] = set()
    for item in _parse(source):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(item.name)
        elif isinstance(item, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in item.names}
        elif isinstance(item, ast.Assign | ast.AnnAssign | ast.If | ast.Try | ast.With | ast.For):
            found |= {node.id for node in ast.walk(item) if _is_stored(node)}
    return found


def used_names(source: str) -> set[str]:
    """Return all names that a program reads."""
    nodes = [node for item in _parse(source) for node in ast.walk(item)]
    return {node.id for node in nodes if isinstance(node, ast.Name) and not _is_stored(node)}


def wanted_names(test: str, entry_point: str = "") -> set[str]:
    """Return the names that tests use and do not define: what the program has to define.

    A name of a builtin is never taken from the program, which could bring a `sorted` of its own.
    """
    entry = used_names(entry_point)
    own: set[str] = set()
    for node in (node for item in _parse(test) for node in ast.walk(item)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.alias):
            own.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            own.add(node.name)
        elif _is_stored(node):
            own.add(node.id)
    return {name for name in entry | (used_names(test) - own) if not hasattr(builtins, name)}


def wanted_by(metadata: Mapping[str, Any]) -> set[str]:
    """Return what a task's program has to define, by its tests and entry point."""
    entry_point = str(metadata.get("entry_point") or "")
    return (
        {entry_point} - {""}
        if entry_point.isidentifier()
        else wanted_names(str(metadata.get("test") or ""), entry_point)
    )


def imported_libraries(source: str) -> set[str]:
    """Return the top-level modules that a piece of Python imports."""
    found: set[str] = set()
    for node in (node for item in _parse(source) for node in ast.walk(item)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _parse(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError):
        return []


def _is_stored(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
