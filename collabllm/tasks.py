"""Tasks: a hidden goal, its reference, what the user knows; from files, datasets or the demo."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from collabllm.data.demo_generator import end_sentence, load_material
from collabllm.data_processing.splitting import is_eval_task, task_key
from collabllm.messages import shorten

DEMO_TASKS = "demo"
_TASKS_PER_DOMAIN = 4


@dataclass(frozen=True)
class Fact:
    """One thing the user knows and tells when asked.

    `cues` are lower-case words of a question for it; `answer` is what the user says; `value` is
    what a finished reply must contain.
    """

    name: str
    answer: str
    cues: tuple[str, ...] = ()
    value: str = ""


@dataclass(frozen=True)
class Task:
    """What one conversation is about. `single_turn_prompt` is hidden from the assistant."""

    task_id: str
    single_turn_prompt: str
    single_turn_completion: str = ""
    task_desc: str = ""
    opening: str = ""
    facts: tuple[Fact, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return the task's columns in the dataset format."""
        return {
            "conv_id": self.task_id,
            "single_turn_prompt": self.single_turn_prompt,
            "single_turn_completion": self.single_turn_completion,
            "single_turn_metadata": dict(self.metadata),
        }


def load_tasks(
    path: str | Path = DEMO_TASKS,
    limit: int | None = None,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
) -> list[Task]:
    """Load tasks from a file, a dataset on the Hub or on disk, or the demo.

    A row needs `single_turn_prompt`; `single_turn_completion`, `task_desc`, `opening`, `task_id`,
    `facts` (name, answer, cues, value) and `single_turn_metadata` are optional. Rows with one goal
    are one task, so any multi-turn dataset gives its goals. The paper's three sources (MATH,
    BigCodeBench, Medium articles) are recognised by their columns; see `task_sources`.

    Args:
        path: A `.jsonl`, `.json` or `.parquet` file, a Hub id, a saved folder, or `"demo"`.
        limit: Take only the first tasks.
        split: Of a Hub dataset.
        columns: For other datasets: our column name to theirs.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a row has no goal, a column is missing, or there is no task.
    """
    if str(path) == DEMO_TASKS:
        return demo_tasks()[:limit]
    from collabllm.task_sources import iter_rows, recognise

    tasks: dict[str, Task] = {}
    for where, row in iter_rows(path, split):
        converted = recognise(row, columns, f"{path} {where}")
        if converted is None:
            continue
        task = to_task(converted, f"{path} {where}")
        tasks.setdefault(task.task_id, task)
        if limit is not None and len(tasks) >= limit:
            break
    if not tasks:
        raise ValueError(f"{path}: has no tasks.")
    return list(tasks.values())


def to_task(row: Mapping[str, Any], where: str = "row") -> Task:
    """Make a task of a row; see `load_tasks` for its columns.

    Raises:
        ValueError: If it has no goal, or a fact lacks its name or answer.
    """
    goal = row.get("single_turn_prompt") if isinstance(row, Mapping) else None
    if not isinstance(goal, str) or not goal.strip():
        raise ValueError(
            f"{where}: 'single_turn_prompt' must be a non-empty text, got {shorten(goal)}; it is "
            "the user's hidden goal."
        )
    return Task(
        str(row.get("task_id") or hashlib.sha256(goal.encode()).hexdigest()[:12]),
        goal,
        row.get("single_turn_completion") or "",
        row.get("task_desc") or "",
        row.get("opening") or "",
        tuple(_to_fact(fact, where) for fact in row.get("facts") or ()),
        row.get("single_turn_metadata") or {},
    )


def _to_fact(fact: Mapping[str, Any], where: str) -> Fact:
    if not isinstance(fact, Mapping) or not {"name", "answer"} <= fact.keys():
        raise ValueError(f"{where}: a fact needs 'name' and 'answer', got {shorten(fact)}.")
    cues = tuple(str(cue).lower() for cue in fact.get("cues") or ())
    return Fact(str(fact["name"]), str(fact["answer"]), cues, str(fact.get("value") or ""))


def demo_tasks(seed: int = 0, domains: Sequence[str] | None = None) -> list[Task]:
    """Draw tasks from the demo material, four a domain, the domains taking turns.

    Args:
        seed: The same seed gives the same tasks.
        domains: Only these; all by default.
    """
    rounds: list[list[Task]] = [[] for _ in range(_TASKS_PER_DOMAIN)]
    for name, domain in load_material().items():
        if domains is not None and name not in domains:
            continue
        random_ = random.Random(f"task-{seed}-{name}")
        for idx, tasks in enumerate(rounds):
            tasks.append(_demo_task(name, domain, idx, random_))
    return [task for tasks in rounds for task in tasks]


def choose_side(tasks: Sequence[Task], side: str, eval_ratio: float, split_by: str) -> list[Task]:
    """Take the tasks on one side of the split that training uses.

    Args:
        tasks: To choose from.
        side: `train`, `eval`, or `all`.
        eval_ratio: As in `multiturn_dataset_to_sft`.
        split_by: As in `multiturn_dataset_to_sft`.

    Raises:
        ValueError: If no task is on that side.
    """
    if side == "all":
        return list(tasks)
    chosen = [
        task
        for task in tasks
        if is_eval_task(task_key(task.to_row(), split_by), eval_ratio) is (side == "eval")
    ]
    if not chosen:
        raise ValueError(
            f"None of {len(tasks)} tasks is on the {side} side of a split by {split_by} with "
            f"eval_ratio={eval_ratio}."
        )
    return chosen


def open_with(task: Task, num_facts: int) -> Task:
    """Return the task with an opening that tells some of its facts already.

    Args:
        task: With facts.
        num_facts: How many; all of them where there are fewer. 0 leaves the task as it is.
    """
    told = sorted(task.facts, key=lambda fact: hashlib.sha256(fact.answer.encode()).digest())
    told = told[:num_facts]
    if not told:
        return task
    opening = " ".join([end_sentence(task.opening), *(fact.answer for fact in told)])
    return replace(task, task_id=f"{task.task_id}+{len(told)}", opening=opening)


def _demo_task(name: str, domain: Mapping[str, Any], idx: int, random_: random.Random) -> Task:
    values = {fact: random_.choice(spec["values"]) for fact, spec in domain["facts"].items()}
    facts = tuple(
        Fact(fact, spec["say"][0].format(v=values[fact]), tuple(spec["cues"]), values[fact])
        for fact, spec in domain["facts"].items()
    )
    opening = domain["openings"][idx % len(domain["openings"])]
    done: str = domain["done"][idx % len(domain["done"])].format(**values)
    return Task(
        task_id=f"{name}-{idx}",
        single_turn_prompt=" ".join([end_sentence(opening), *(fact.answer for fact in facts)]),
        single_turn_completion=done[0].upper() + done[1:],
        task_desc=name.replace("_", " "),
        opening=opening,
        facts=facts,
        metadata={"domain": name},
    )
