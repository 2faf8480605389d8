"""How often test tasks were opened, in a file that all evaluations share.

A recipe is chosen on development tasks; test tasks are for one look at the end. Every further look
makes them development tasks, so each is counted, and the report says how many there were.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from collabllm.evaluation.results import TaskSetUse
from collabllm.files import JsonLinesWriter, read_json_lines
from collabllm.tasks import Task

Purpose = Literal["development", "test"]


def purpose_of(tasks: str, dataset_split: str, said: str) -> Purpose:
    """Tell test tasks from development tasks by what was said, or by a name that ends in test."""
    if said != "auto":
        return "test" if said == "test" else "development"
    *_, last = Path(tasks).stem.replace("-", "_").split("_")
    return "test" if "test" in (last, dataset_split) else "development"


def count_use(
    log: Path,
    tasks: Sequence[Task],
    *,
    date: str,
    output_dir: str,
    arms: Sequence[str],
    goes_on: bool,
) -> list[TaskSetUse]:
    """Write down that test tasks are opened, and return every use of any of them so far.

    An evaluation that goes on with the same arms does not open them again; one with a further arm,
    training or task does, and so does a new one in the place of one that was deleted.

    Args:
        log: The file of all uses.
        tasks: That are opened.
        date: Date of today.
        output_dir: Output folder of the evaluation.
        arms: Names of arms and trainings.
        goes_on: The folder has this evaluation already.
    """
    ours = sorted(_fingerprint(task) for task in tasks)
    log.parent.mkdir(parents=True, exist_ok=True)
    former = list(read_json_lines(log)) if log.is_file() else []
    folder = str(Path(output_dir).resolve())
    is_known = goes_on and any(
        line["output_dir"] == folder
        and set(arms) <= set(line["arms"])
        and set(ours) <= set(line["tasks"])
        for line in former
    )
    if not is_known:
        line = {"date": date, "output_dir": folder, "arms": list(arms), "tasks": ours}
        with JsonLinesWriter(log, resume=True) as writer:
            writer.write(line)
        former.append(line)
    wanted = set(ours)
    return [
        TaskSetUse(line["date"], line["output_dir"], line["arms"], len(wanted & {*line["tasks"]}))
        for line in former
        if wanted & {*line["tasks"]}
    ]


def _fingerprint(task: Task) -> str:
    return hashlib.sha256(task.single_turn_prompt.encode()).hexdigest()[:12]
