"""A task: a hidden goal, its reference, and what the user knows."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from collabllm.data.task_bank import end_sentence
from collabllm.messages import shorten
from collabllm.tasks.fields import read_list, read_object, read_optional_text, read_text

TASK_COLUMNS = (
    "single_turn_prompt",
    "single_turn_completion",
    "opening",
    "task_desc",
    "facts",
    "told_openings",
    "task_id",
    "single_turn_metadata",
)


@dataclass(frozen=True)
class Fact:
    """One thing the user knows and tells when asked.

    `cues` are lower-case words of a question for it; `answer` is what the user says; `value` is
    what a finished reply must contain; `question` is one way to ask for it; `weight` says how much
    it matters beside the others.
    """

    name: str
    answer: str
    cues: tuple[str, ...] = ()
    value: str = ""
    question: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Opening:
    """A first message as somebody would write it, and the names of the facts that it tells."""

    text: str
    tells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What one conversation is about. `single_turn_prompt` is hidden from the assistant.

    `opening` tells no fact; `told_openings` are others, which tell some or all of them.
    """

    task_id: str
    single_turn_prompt: str
    single_turn_completion: str = ""
    task_desc: str = ""
    opening: str = ""
    facts: tuple[Fact, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    told_openings: tuple[Opening, ...] = ()

    @property
    def first_message(self) -> str:
        """What a user says first who tells no fact; plain words where nothing is written."""
        return self.opening or self.task_desc or "I need help with something."

    def to_row(self) -> dict[str, Any]:
        """Return the task's columns in the dataset format."""
        return {
            "conv_id": self.task_id,
            "single_turn_prompt": self.single_turn_prompt,
            "single_turn_completion": self.single_turn_completion,
            "single_turn_metadata": dict(self.metadata),
        }


def to_task(row: Mapping[str, Any], where: str = "row") -> Task:
    """Make a task of a row; see `load_tasks` for its columns.

    Raises:
        ValueError: If it has no goal, a column has another kind of value, a fact lacks its name or
            answer, two facts have one name, an opening tells a fact that there is not, or a weight
            is no number above 0.
    """
    goal = row.get("single_turn_prompt") if isinstance(row, Mapping) else None
    if not isinstance(goal, str) or not goal.strip():
        raise ValueError(
            f"{where}: 'single_turn_prompt' must be a non-empty text, got {shorten(goal)}; it is "
            "the user's hidden goal."
        )
    try:
        facts = _to_facts(row)
        return Task(
            read_optional_text(row, "task_id") or hashlib.sha256(goal.encode()).hexdigest()[:12],
            goal,
            read_optional_text(row, "single_turn_completion"),
            read_optional_text(row, "task_desc"),
            read_optional_text(row, "opening"),
            facts,
            read_object(row, "single_turn_metadata"),
            tuple(_to_opening(opening, facts) for opening in read_list(row, "told_openings")),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _to_opening(opening: Any, facts: Sequence[Fact]) -> Opening:
    if not isinstance(opening, Mapping) or not opening.get("text"):
        raise ValueError(f"an opening needs a 'text', got {shorten(opening)}.")
    tells = list(dict.fromkeys(str(name) for name in read_list(opening, "tells")))
    names = [fact.name for fact in facts]
    unknown = next((name for name in tells if name not in names), None)
    if unknown is not None:
        raise ValueError(
            f"an opening tells {shorten(unknown)}, which is no fact of the task; it has "
            f"{', '.join(names) or 'none'}."
        )
    return Opening(read_text(opening, "text"), tuple(tells))


def _to_facts(row: Mapping[str, Any]) -> tuple[Fact, ...]:
    facts = tuple(_to_fact(fact) for fact in read_list(row, "facts"))
    names = [fact.name for fact in facts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two facts are called {twice!r}; give each a name of its own.")
    return facts


def _to_fact(fact: Mapping[str, Any]) -> Fact:
    if not isinstance(fact, Mapping) or not all(
        fact.get(name) is not None and str(fact[name]).strip() for name in ("name", "answer")
    ):
        raise ValueError(f"a fact needs 'name' and 'answer', got {shorten(fact)}.")
    return Fact(
        read_text(fact, "name"),
        read_text(fact, "answer"),
        tuple(str(cue).lower() for cue in read_list(fact, "cues")),
        read_optional_text(fact, "value"),
        read_optional_text(fact, "question"),
        _to_weight(fact.get("weight")),
    )


def _to_weight(value: Any) -> float:
    """Read a weight; 1 where there is none."""
    if value is None or value == "":
        return 1.0
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        weight = 0.0
    if not 0 < weight < math.inf:
        raise ValueError(f"a fact's weight must be a number above 0, got {shorten(value)}.")
    return weight


def count_partly_told(task: Task) -> int:
    """Return how many facts an opening tells that tells some: as it is written, or else half."""
    written = (len(opening.tells) for opening in task.told_openings)
    return next((n for n in written if 0 < n < len(task.facts)), (len(task.facts) + 1) // 2)


def open_with(task: Task, num_facts: int) -> Task:
    """Return the task with an opening that tells some of its facts already.

    An opening of `told_openings` that tells as many is taken; else the facts' answers are added to
    the opening that tells none.

    Args:
        task: A task with facts.
        num_facts: How many; all of them where there are fewer. 0 leaves the task as it is.
    """
    number = min(num_facts, len(task.facts))
    if not number:
        return task
    written = next((o.text for o in task.told_openings if len(o.tells) == number), None)
    if written is None:
        told = sorted(task.facts, key=lambda fact: hashlib.sha256(fact.answer.encode()).digest())
        answers = [fact.answer for fact in told[:number]]
        written = " ".join([end_sentence(task.first_message), *answers])
    return replace(task, task_id=f"{task.task_id}+{number}", opening=written)


def open_in_turn(tasks: Sequence[Task], num_told: Sequence[int]) -> list[Task]:
    """Open tasks with as many facts as `num_told` says, which they take in turn."""
    return [open_with(task, num_told[idx % len(num_told)]) for idx, task in enumerate(tasks)]
