"""Load tasks from files, datasets or the demo, and take one side of a split."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from collabllm.data_processing.splitting import check_split_column, is_eval_task, task_key
from collabllm.files import find_split_file, is_saved_dataset, refuse_unreadable
from collabllm.hub import check_reachable
from collabllm.tasks.demo import DemoSide, demo_tasks
from collabllm.tasks.fields import Row
from collabllm.tasks.matching import facts_told
from collabllm.tasks.sources import recognise
from collabllm.tasks.task import Task, to_task

logger = logging.getLogger(__name__)

_MAX_EXAMPLES = 5

DEMO_TASKS = "demo"
_DEMO_SIDES: Mapping[str, DemoSide | None] = {
    DEMO_TASKS: None,
    "demo_train": "train",
    "demo_development": "development",
    "demo_test": "test",
}


def load_tasks(
    path: str | Path = DEMO_TASKS,
    limit: int | None = None,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    config: str | None = None,
) -> list[Task]:
    """Load tasks from a file, a dataset on the Hub or on disk, or the demo.

    A row needs `single_turn_prompt`; `single_turn_completion`, `task_desc`, `opening`, `task_id`,
    `facts` (a list of what `Fact` has: name and answer, and value, question, cues and weight where
    they are known), `told_openings` (a list of what `Opening` has) and `single_turn_metadata` are
    optional. Rows with one goal, and no ids that differ, are one task, so any multi-turn dataset
    gives its goals. The paper's three sources (MATH, BigCodeBench, Medium
    articles) and four others are recognised by their columns; see `sources`.

    Args:
        path: A `.jsonl`, `.json` or `.parquet` file, a Hub id, a saved folder, or the demo:
            `demo`, and its sides `demo_train`, `demo_development` and `demo_test`.
        limit: Take only the first tasks.
        split: Split of a Hub dataset.
        columns: For other datasets: our column name to theirs.
        config: Configuration of a Hub dataset.

    Raises:
        FileNotFoundError: If a file or folder is not there.
        ValueError: If a file cannot be read, a row has no goal, a column is missing, two goals have
            one id, or there is no task.
    """
    if str(path) in _DEMO_SIDES:
        return demo_tasks(_DEMO_SIDES[str(path)])[:limit]
    tasks: dict[str, Task] = {}
    left_out: Counter[str] = Counter()
    num_other = 0
    for where, row in _iter_rows(path, split, config):
        converted = recognise(row, columns, f"{path} {where}")
        if isinstance(converted, str):
            left_out[converted] += 1
            continue
        task = to_task(converted, f"{path} {where}")
        known = tasks.setdefault(task.task_id, task)
        if known.single_turn_prompt != task.single_turn_prompt:
            raise ValueError(
                f"{path} {where}: task_id {task.task_id!r} is that of an earlier row with another "
                "goal; give each goal an id of its own, or leave task_id out."
            )
        num_other += (known.facts, known.single_turn_completion) != (
            task.facts,
            task.single_turn_completion,
        )
        if limit is not None and len(tasks) >= limit:
            break
    if num_other:
        logger.warning(
            "%s: %d rows have the goal of an earlier row, but other facts or another reference; "
            "the first row of a goal counts.",
            path,
            num_other,
        )
    for why, number in left_out.items():
        logger.warning("%s: %d rows left out: %s.", path, number, why)
    if not tasks:
        raise ValueError(f"{path}: has no tasks.")
    _check_openings(path, tasks.values())
    return list(tasks.values())


def _check_openings(path: str | Path, tasks: Iterable[Task]) -> None:
    """Warn of openings that tell other facts than they say, as `facts_told` reads them."""
    wrong = []
    for task in tasks:
        for opening in task.told_openings:
            told = facts_told(task.facts, [{"role": "user", "content": opening.text}])
            if other := sorted(told ^ {*opening.tells}):
                wrong.append(f"task {task.task_id!r}: {', '.join(map(repr, other))}")
    if wrong:
        logger.warning(
            "%s: %d openings do not tell the facts that their 'tells' says, or tell others: %s.",
            path,
            len(wrong),
            "; ".join(wrong[:_MAX_EXAMPLES]) + "; ..." * (len(wrong) > _MAX_EXAMPLES),
        )


def _iter_rows(
    path: str | Path, split: str = "train", config: str | None = None
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, a saved folder or a Hub dataset, one at a time, and where each is.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is not JSON.
    """
    file = Path(path).expanduser()
    if file.suffix in (".jsonl", ".json", ".parquet") and not file.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    from datasets import Dataset, load_dataset, load_from_disk  # pandas loads here

    from collabllm.data_processing.loading import iter_json

    file = find_split_file(file, split) or file
    if file.suffix in (".jsonl", ".json"):
        yield from iter_json(file)
        return
    if file.suffix == ".parquet":
        rows = load_dataset("parquet", data_files=str(file), split="train", streaming=True)
    elif is_saved_dataset(file):
        saved = load_from_disk(str(file))
        if not isinstance(saved, Dataset) and split not in saved:
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(saved)}.")
        rows = saved if isinstance(saved, Dataset) else saved[split]
    else:
        refuse_unreadable(path, split)
        check_reachable(str(path), "dataset")
        rows = load_dataset(str(path), config, split=split, streaming=True)
    for idx, row in enumerate(rows, start=1):
        yield f"row {idx}", row


def choose_side(tasks: Sequence[Task], side: str, eval_ratio: float, split_by: str) -> list[Task]:
    """Take the tasks on one side of the split that training uses.

    Args:
        tasks: Tasks to choose from.
        side: `train`, `eval`, or `all`.
        eval_ratio: As in `multiturn_dataset_to_sft`.
        split_by: As in `multiturn_dataset_to_sft`.

    Raises:
        ValueError: If no task is on that side, or no task has the column.
    """
    if side == "all":
        return list(tasks)
    check_split_column([task.to_row() for task in tasks], split_by)
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
