"""Which tasks a training run held out, read from what it left in its folder."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from collabllm.data_processing.splitting import check_split_column, is_eval_task, task_key
from collabllm.tasks.loading import load_tasks
from collabllm.tasks.task import Task

logger = logging.getLogger(__name__)

TRAIN_CONFIG = "train_config.yaml"


def read_trainings(run: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the configuration of a run, then of the adapter it was trained from, and so on."""
    path: str | Path | None = run
    while path:
        file = Path(path) / TRAIN_CONFIG
        if not file.is_file():
            logger.info("%s: no %s, so its training tasks are unknown.", path, TRAIN_CONFIG)
            return
        config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        yield config
        path = config.get("lora_path")


def trained_keys(config: Mapping[str, Any]) -> set[str]:
    """Return the keys of the tasks that a run was trained on, and their goals as keys, too.

    Args:
        config: Configuration of the run, from `read_trainings`.

    Raises:
        OSError: If its dataset or tasks are not there any more.
        ValueError: If they cannot be read.
    """
    split_by, eval_ratio = config["split_by"], config["eval_ratio"]
    rows: Iterable[dict[str, Any]]
    if config.get("tasks") and config.get("prompts") != "turns":  # online training on other tasks
        tasks = load_tasks(
            config["tasks"],
            split=config.get("dataset_split", "train"),
            config=config.get("dataset_config"),
        )
        rows = (task.to_row() for task in tasks)
    else:
        rows = _iter_dataset(config)
    found = (task_keys(row, split_by) for row in rows)
    return {key for keys in found if not is_eval_task(keys[0], eval_ratio) for key in keys}


def task_keys(row: Mapping[str, Any], split_by: str) -> list[str]:
    """Return the key that a row is split by, and that of its goal where it has one."""
    keys = [task_key(row, split_by), task_key(row)]
    return keys if row.get("single_turn_prompt") is not None else keys[:1]


def _iter_dataset(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from collabllm.data_processing.loading import load_multiturn_dataset  # pandas loads here

    given, split_by = config["hf_dataset_path"], config["split_by"]
    paths = [given] if isinstance(given, str) else given
    columns = {"conv_id", "single_turn_prompt", "single_turn_metadata", split_by.split(".")[0]}
    for idx, path in enumerate(paths):
        dataset = load_multiturn_dataset(
            path,
            config.get("dataset_split", "train"),
            config_name=config.get("dataset_config"),
            skip_bad_rows=config.get("skip_bad_rows", False),
        )
        for row in dataset.select_columns(sorted(columns & set(dataset.column_names))):
            if len(paths) > 1:  # as training joins them
                row["conv_id"] = f"{idx}/{row['conv_id']}"
            yield row


def choose_held_out(tasks: Sequence[Task], run: str | Path) -> list[Task]:
    """Take the tasks that a run, and the runs it was trained from, did not train on.

    The first training's split decides which tasks are held out; tasks that it or a later one
    trained on, by their key or their goal, are left out, too.

    Args:
        tasks: Tasks to choose from.
        run: Folder of the run.

    Raises:
        FileNotFoundError: If the folder has no configuration of a training.
        ValueError: If no task is held out or has the column of a split, or a later training's
            dataset cannot be read.
    """
    trainings = list(read_trainings(run))
    if not trainings:
        raise FileNotFoundError(
            f"--held_out_of {run}: there is no {TRAIN_CONFIG}; give the folder of a training run."
        )
    *_, first = trainings
    rows = [task.to_row() for task in tasks]
    for config in trainings:
        check_split_column(rows, config["split_by"], f"--held_out_of {run}, which was split by")
    chosen = [
        (task, row)
        for task, row in zip(tasks, rows, strict=True)
        if is_eval_task(task_key(row, first["split_by"]), first["eval_ratio"])
    ]
    for config in trainings:
        split_by = config["split_by"]
        if config is first and split_by == "single_turn_prompt":
            continue  # one key, one side
        try:
            trained = trained_keys(config)
        except (OSError, ValueError) as error:
            if config is not first:
                raise
            logger.info("%s: goals are not compared with its data (%s).", run, error)
            continue
        chosen = [(task, row) for task, row in chosen if not trained & {*task_keys(row, split_by)}]
    if not chosen:
        raise ValueError(
            f"--held_out_of {run}: none of {len(tasks)} tasks is held out (split by "
            f"{first['split_by']}, eval_ratio={first['eval_ratio']})."
        )
    return [task for task, _ in chosen]
