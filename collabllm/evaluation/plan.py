"""What an evaluation is to do, kept beside its results: tasks, openings, arms, users, outcomes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from collabllm.data_processing.splitting import task_key
from collabllm.evaluation.measures import (
    DESCRIPTIVE,
    FIRST_REPLY_ASKS,
    lower_is_better,
    without_limits,
)
from collabllm.evaluation.results import ArmInfo, Opening, Outcome, TaskSetUse, UserInfo
from collabllm.files import read_json_object, write_text
from collabllm.tasks import Task, count_partly_told, open_with

PLAN_FILE = "plan.json"
ALL_FACTS, SOME_FACTS = "all", "some"
DEALT = "people_dealt"
"""The setting of a study's plan that has, by arm, the positions of those whom it was dealt to."""


@dataclass(frozen=True)
class Variant:
    """A task with one opening; `task_id` names it in transcripts and scores."""

    task_id: str
    task: str
    cluster: str
    opening: Opening
    num_told: int
    num_facts: int

    @property
    def share_told(self) -> float:
        """Share of the task's facts that the opening tells; 1 where there is nothing to tell."""
        if self.num_facts:
            return self.num_told / self.num_facts
        return 1.0 if self.opening == "all" else 0.0


@dataclass
class Plan:
    """What was to be done, and what made it; results are computed from it and from the scores."""

    arms: list[ArmInfo]
    users: list[UserInfo]
    reference: str
    metrics: list[str]
    primary: list[Outcome]
    variants: list[Variant]
    num_rollouts: int
    cluster_by: str
    tasks: str
    tasks_are: Literal["development", "test"]
    test_set_uses: list[TaskSetUse]
    seed: int
    date: str
    command: str
    versions: dict[str, str]
    commit: str
    prompt_hashes: dict[str, str]
    signatures: dict[str, str]
    settings: dict[str, Any]
    notes: list[str]
    contents: dict[str, str] = field(default_factory=dict)
    """Hashes of tasks and adapters, by name."""
    lower_is_better: list[str] | None = None
    """Metrics of which less is better: rendering knows nothing of one's own. None takes what is
    registered, also in a plan from before it was kept."""
    without_limits: list[str] | None = None
    """Metrics that may leave [0, 1], whatever was seen; None as above."""

    def __post_init__(self) -> None:
        """Take from the registry what a plan did not keep."""
        if self.lower_is_better is None:
            self.lower_is_better = lower_is_better(self.metrics)
        if self.without_limits is None:
            self.without_limits = without_limits(self.metrics)

    @property
    def num_conversations(self) -> int:
        """Planned conversations of all arms, trainings and users."""
        trainings = sum(max(len(arm.training_seeds), 1) for arm in self.arms)
        return trainings * len(self.users) * len(self.variants) * self.num_rollouts

    def write(self, folder: Path) -> None:
        """Write the plan into the evaluation's folder at once."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(folder / PLAN_FILE, text + "\n")


def read_plan(folder: Path) -> Plan:
    """Read the plan of an evaluation.

    Raises:
        FileNotFoundError: If the folder has none.
        ValueError: If it is that of another version, or damaged.
    """
    file = folder / PLAN_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no evaluation: there is no {PLAN_FILE}.")
    found = {"contents": {}, **read_json_object(file)}
    parts = {
        "arms": ArmInfo,
        "users": UserInfo,
        "primary": Outcome,
        "variants": Variant,
        "test_set_uses": TaskSetUse,
    }
    try:
        lists = {name: [kind(**part) for part in found[name]] for name, kind in parts.items()}
        kept = [f.name for f in fields(Plan) if f.default is MISSING or f.name in found]
        return Plan(**{**{name: found[name] for name in kept}, **lists})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: is the plan of another version of this project, or incomplete ({error}); "
            "evaluate into a new folder."
        ) from error


def open_tasks(
    tasks: Iterable[Task], num_told: Sequence[int | str], cluster_by: str
) -> list[tuple[Task, Variant]]:
    """Give each task its openings.

    The number told belongs to the task: two numbers that come to the same opening (3 of 2 facts,
    and `all`) give one, and it is complete only when it tells every fact of that task.

    Args:
        tasks: Without facts told.
        num_told: How many facts the openings tell; `all` for every one, `some` for as many as the
            opening that was written so tells (half of them where none was).
        cluster_by: Column whose tasks are not independent of one another.

    Raises:
        ValueError: If two tasks have openings of one name.
    """
    found: dict[str, tuple[Task, Variant]] = {}
    for wanted in num_told:
        for task in tasks:
            number = _count_told(task, wanted)
            opened = open_with(task, number)
            cluster = task_key(task.to_row(), cluster_by)
            variant = Variant(
                opened.task_id,
                task.task_id,
                cluster,
                _opening_of(task, number),
                number,
                len(task.facts),
            )
            _, known = found.setdefault(opened.task_id, (opened, variant))
            if known.task != task.task_id:
                raise ValueError(
                    f"The tasks {known.task!r} and {task.task_id!r} both have an opening that is "
                    f"called {opened.task_id!r}; rename one of them."
                )
    return list(found.values())


def _count_told(task: Task, wanted: int | str) -> int:
    if wanted == SOME_FACTS:
        return count_partly_told(task)
    return len(task.facts) if wanted == ALL_FACTS else min(int(wanted), len(task.facts))


def _opening_of(task: Task, num_told: int) -> Opening:
    if not task.facts:
        return "all" if task.opening == task.single_turn_prompt else "unasked"
    if num_told == len(task.facts):
        return "all"
    return "some" if num_told else "none"


def choose_primary(
    given: Sequence[str], metrics: Sequence[str], openings: Iterable[Opening]
) -> list[Outcome]:
    """Read the primary outcomes, or choose one for need and one for needlessness.

    Args:
        given: `metric@opening`; empty for the default: `facts_elicited@none` and
            `first_reply_asks@all`, or else the first metric at the first opening.
        metrics: All that are measured.
        openings: Those that occur.

    Raises:
        ValueError: If an outcome is not measured.
    """
    openings = list(openings)
    if given:
        outcomes = [_read_outcome(text, metrics, openings) for text in given]
        return list(dict.fromkeys(outcomes))
    default = [Outcome("facts_elicited", "none"), Outcome(FIRST_REPLY_ASKS, "all")]
    found = [o for o in default if o.metric in metrics and o.opening in openings]
    if any(o.metric in metrics and o.opening == "none" for o in found):
        return found
    quality = [metric for metric in metrics if metric not in (*DESCRIPTIVE, FIRST_REPLY_ASKS)]
    first = [Outcome(quality[0], openings[0])] if quality else []
    return [*first, *found] or [Outcome(metrics[0], openings[0])]


def _read_outcome(text: str, metrics: Sequence[str], openings: Sequence[Opening]) -> Outcome:
    metric, _, name = text.rpartition("@")
    opening = next((known for known in openings if known == name), None)
    if metric not in metrics or metric in DESCRIPTIVE or opening is None:
        measured = ", ".join(name for name in metrics if name not in DESCRIPTIVE)
        raise ValueError(
            f"--primary {text} must be METRIC@OPENING with a metric of {measured} and an opening "
            f"of {', '.join(openings)}."
        )
    return Outcome(metric, opening)
