"""The tasks of the task bank, on three sides by kind: train, development, test."""

from typing import Literal

from collabllm.data.task_bank import Entry, is_test_kind, load_bank
from collabllm.data_processing.splitting import is_eval_task
from collabllm.tasks.task import Fact, Opening, Task

DemoSide = Literal["train", "development", "test"]

KIND_COLUMN = "single_turn_metadata.kind"
DEVELOPMENT_RATIO = 0.2
"""`eval_ratio` of the demo's trainings, which split by `KIND_COLUMN`."""


def demo_tasks(side: DemoSide | None = None) -> list[Task]:
    """Return the tasks of the bank, one of each kind.

    A clear request is a task without facts, whose opening says everything.

    Args:
        side: `train` has the kinds that the demo trains on; `development` those that it holds out,
            to choose recipes on; `test` those that nothing is trained or chosen on; None train and
            development, the kinds of the demo dataset.
    """
    sides = ("train", "development") if side is None else (side,)
    return [_to_task(entry) for entry in load_bank() if demo_side(entry["kind"]) in sides]


def demo_side(kind: str) -> DemoSide:
    """Return the side of a kind; training on the demo dataset splits the same way."""
    if is_test_kind(kind):
        return "test"
    held_out = is_eval_task(f"{KIND_COLUMN}:{kind}", DEVELOPMENT_RATIO)
    return "development" if held_out else "train"


def _to_task(entry: Entry) -> Task:
    metadata = {"kind": entry["kind"], "area": entry["area"]}
    description = entry["kind"].replace("_", " ")
    if "request" in entry:
        request = entry["request"]
        return Task(
            entry["kind"], request, entry["result"], description, request, metadata=metadata
        )
    facts = tuple(
        Fact(name, fact["say"], value=fact["value"], question=fact["ask"])
        for name, fact in entry["facts"].items()
    )
    some = entry["some"]
    return Task(
        entry["kind"],
        entry["full"],
        entry["result"],
        description,
        entry["vague"][0],
        facts,
        metadata,
        (
            Opening(some["text"], tuple(some["tells"])),
            Opening(entry["full"], tuple(entry["facts"])),
        ),
    )
