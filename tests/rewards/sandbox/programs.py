"""Tasks, programs and cheats, as they stand in the YAML files beside this one."""

from dataclasses import dataclass
from pathlib import Path

import yaml

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class CodeTask:
    """A task; a program is to define `entry_point`."""

    name: str
    entry_point: str
    right: str
    wrong: str
    test: str


def _load(name):
    return yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))


TASKS = [CodeTask(**row) for row in _load("code_tasks.yaml")]
CHEATS = _load("cheats.yaml")


def cheat(name: str, entry_point: str) -> str:
    """Return a cheating program for a task."""
    called = entry_point.partition("(")[0]
    program = CHEATS[name].replace("NAME", called)
    method = entry_point.partition(".")[2]
    if method and f"def {called}" in program:  # the tests call a method of a class
        program += f"\ncheated = {called}\nclass {called}:\n    def {method}(self, *a, **k):\n"
        program += "        return cheated(*a, **k)\n"
    return program
