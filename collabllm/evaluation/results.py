"""The results of an evaluation as typed objects; results.json holds the same.

Everything that a report or a table shows stands here once. An *outcome* is a metric at one kind of
opening. Means, differences and p-values are those of docs/evaluation.md.
"""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from collabllm.evaluation.findings import (
    OPENINGS,
    AskingPoint,
    Cell,
    Difference,
    Endings,
    Opening,
    Ranking,
    Verdict,
)
from collabllm.files import write_text

__all__ = [
    "NOT_APPLICABLE",
    "NOT_RUN",
    "OPENINGS",
    "PEOPLE_UNIT",
    "POOLED",
    "RESULTS_FILE",
    "ArmInfo",
    "AskingPoint",
    "Cell",
    "Difference",
    "Endings",
    "MetricInfo",
    "Opening",
    "Outcome",
    "Progress",
    "Ranking",
    "Results",
    "TaskSetUse",
    "UserInfo",
    "Verdict",
    "read_results",
    "write_results",
]

RESULTS_FILE = "results.json"
POOLED = "all users"
"""The user of what is averaged over the whole panel."""

PEOPLE_UNIT = "person"
"""What the results of a study with people are paired and clustered by."""

NOT_RUN = "not run"
"""Why a value is missing whose conversation was planned and has not ended."""

NOT_APPLICABLE = "does not apply"
"""Why a value is missing whose conversation has none, though the metric has a meaning there."""


@dataclass(frozen=True)
class ArmInfo:
    """One competitor, and its trainings: several adapters are seeds of one recipe."""

    name: str
    training_seeds: list[str]
    """Names of the trainings, where there may be several; empty for a single adapter or none."""
    lora_paths: list[str]
    system_prompt: str
    """`default`, `proactive`, `none`, or the text."""
    model: str
    """Local model, or a server's name of it."""
    base_url: str | list[str] | None = None


@dataclass(frozen=True)
class UserInfo:
    """One kind of simulated user, with a sentence that says what it does."""

    name: str
    kind: str
    description: str


@dataclass(frozen=True)
class MetricInfo:
    """One measure; `descriptive` ones (tokens, seconds) get no test and are never "better"."""

    name: str
    descriptive: bool
    bounded: bool
    """Whether all values lie in [0, 1]."""
    better: dict[str, int]
    """By opening: 1 where higher is better, -1 where lower is, 0 where neither."""


@dataclass(frozen=True)
class Outcome:
    """What was declared to decide, before anything ran."""

    metric: str
    opening: Opening

    def __str__(self) -> str:
        """Return `metric@opening`, as --primary takes it."""
        return f"{self.metric}@{self.opening}"


@dataclass(frozen=True)
class Progress:
    """How many conversations of an arm with a user were planned, ended, and failed."""

    arm: str
    user: str
    planned: int
    done: int
    failed: int


@dataclass(frozen=True)
class TaskSetUse:
    """One evaluation that opened the test tasks."""

    date: str
    output_dir: str
    arms: list[str]
    num_tasks: int


@dataclass(frozen=True)
class Results:
    """All that an evaluation found, and how it came about."""

    arms: list[ArmInfo]
    users: list[UserInfo]
    reference: str
    metrics: list[MetricInfo]
    primary: list[Outcome]
    cells: list[Cell]
    differences: list[Difference]
    rankings: list[Ranking]
    asking: list[AskingPoint]
    endings: list[Endings]
    audit: dict[str, dict[str, float]]
    """By user, the share of conversations with each fault, and means of how it talks."""
    progress: list[Progress]
    num_tasks: int
    num_clusters: int
    cluster_by: str
    num_rollouts: int
    tasks: str
    tasks_are: Literal["development", "test"]
    test_set_uses: list[TaskSetUse]
    """Every evaluation so far that opened a task of this test set; this one is the last."""
    usage: dict[str, dict[str, int]]
    """By role, `requests`, `prompt_tokens` and `completion_tokens` of all runs of this folder; also
    by `server URL`, where there are several."""
    num_unanswered: int
    """Requests that were sent and whose answers were never read; a server may have counted them."""
    cost_usd: float
    seed: int
    date: str
    command: str
    versions: dict[str, str]
    commit: str
    prompt_hashes: dict[str, str]
    signatures: dict[str, str]
    settings: dict[str, Any]
    notes: list[str]
    """Sentences that a reader must not miss: what is incomplete, changed or unsure."""
    without_price: list[str] = field(default_factory=list)
    """Models that were used and that `cost_usd` leaves out; results of before do not say."""

    @property
    def complete(self) -> bool:
        """Whether every planned conversation ended without failure."""
        return all(p.done == p.planned for p in self.progress)

    @property
    def headline_user(self) -> str:
        """The user of the primary outcomes: all of a panel, or the only one."""
        return POOLED if len(self.users) > 1 else self.users[0].name

    @property
    def user_names(self) -> list[str]:
        """All users, the pooled one first where there are several."""
        names = [user.name for user in self.users]
        return [POOLED, *names] if len(names) > 1 else names

    @property
    def openings(self) -> list[Opening]:
        """The openings that occur, in their fixed order."""
        found = {cell.opening for cell in self.cells}
        return [opening for opening in OPENINGS if opening in found]

    def primary_differences(self) -> list[Difference]:
        """Return the primary outcomes of every arm against the reference."""
        return [d for d in self.differences if d.primary]

    def cell(self, arm: str, user: str, opening: str, metric: str) -> Cell | None:
        """Return a cell, or None where the metric has no meaning."""
        return next(
            (
                c
                for c in self.cells
                if (c.arm, c.user, c.opening, c.metric) == (arm, user, opening, metric)
            ),
            None,
        )

    def difference(
        self, arm: str, other: str, user: str, opening: str, metric: str
    ) -> Difference | None:
        """Return arm minus other, whichever way it is kept; None where there is none."""
        for d in self.differences:
            if (d.user, d.opening, d.metric) == (user, opening, metric):
                if (d.arm, d.reference) == (arm, other):
                    return d
                if (d.arm, d.reference) == (other, arm):
                    return d.reversed()
        return None


_PARTS: dict[str, type] = {
    "arms": ArmInfo,
    "users": UserInfo,
    "metrics": MetricInfo,
    "primary": Outcome,
    "cells": Cell,
    "differences": Difference,
    "rankings": Ranking,
    "asking": AskingPoint,
    "endings": Endings,
    "progress": Progress,
    "test_set_uses": TaskSetUse,
}


def write_results(folder: Path, results: Results) -> Path:
    """Write results.json at once."""
    file = folder / RESULTS_FILE
    text = json.dumps(asdict(results), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(file, text + "\n")
    return file


def read_results(path: str | Path) -> Results:
    """Read results.json, or that of a folder.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not of this version.
    """
    file = Path(path) / RESULTS_FILE if Path(path).is_dir() else Path(path)
    found = json.loads(file.read_text(encoding="utf-8"))
    needed = {f.name for f in fields(Results) if f.default_factory is MISSING}
    missing = needed - found.keys()
    if missing:
        raise ValueError(
            f"{file}: was written by another version; it lacks {', '.join(sorted(missing))}. Write "
            "it anew: scripts/evaluate.py --resume with the settings of the folder."
        )
    parts = {name: [kind(**part) for part in found[name]] for name, kind in _PARTS.items()}
    own = {f.name: found[f.name] for f in fields(Results) if f.name in found}
    return Results(**{**own, **parts})
