"""The tasks of the task bank."""

from collabllm.data.task_bank import BankSide, Entry, bank_side, load_bank
from collabllm.tasks.task import Fact, Opening, Task


def demo_tasks(side: BankSide = "development") -> list[Task]:
    """Return the tasks of the bank, one a kind.

    A clear request is a task without facts, whose opening says everything.

    Args:
        side: `development` has the kinds that the demo dataset has; `test` the others, on which
            nothing is trained or chosen.
    """
    return [_to_task(entry) for entry in load_bank() if bank_side(entry["kind"]) == side]


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
