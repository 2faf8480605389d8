"""Public names of a package that load when they are first used."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package, for completion and `help()`.

    Args:
        package: Its `__name__`.
        homes: By public name, the module below `collabllm` that defines it.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"collabllm.{homes[name]}"), name)

    return load, lambda: sorted(homes)
