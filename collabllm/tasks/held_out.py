"""Which tasks a training run held out, read from what it left in its folder."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from collabllm.data_processing.splitting import is_eval_task, task_key
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
    """Return the keys of the tasks that a run was trained on, as `task_key` gives them.

    Args:
        config: Configuration of the run, from `read_trainings`.

    Raises:
        OSError: If its dataset or tasks are not there any more.
        ValueError: If they cannot be read.
    """
    split_by, eval_ratio = config["split_by"], config["eval_ratio"]
    if config.get("tasks") and config.get("prompts") != "turns":  # online training on other tasks
        tasks = load_tasks(
            config["tasks"],
            split=config.get("dataset_split", "train"),
            config=config.get("dataset_config"),
        )
        keys = {task_key(task.to_row(), split_by) for task in tasks}
    else:
        keys = _dataset_keys(config)
    return {key for key in keys if not is_eval_task(key, eval_ratio)}


def _dataset_keys(config: Mapping[str, Any]) -> set[str]:
    from collabllm.data_processing.loading import load_multiturn_dataset  # pandas loads here

    given, split_by = config["hf_dataset_path"], config["split_by"]
    paths = [given] if isinstance(given, str) else given
    columns = {"conv_id", "single_turn_prompt", "single_turn_metadata", split_by.split(".")[0]}
    keys = set()
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
            keys.add(task_key(row, split_by))
    return keys


def choose_held_out(tasks: Sequence[Task], run: str | Path) -> list[Task]:
    """Take the tasks that a run, and the runs it was trained from, did not train on.

    The first training's split decides which tasks are held out; tasks that a later one trained on
    are left out, too.

    Args:
        tasks: Tasks to choose from.
        run: Folder of the run.

    Raises:
        FileNotFoundError: If the folder has no configuration of a training.
        ValueError: If no task is held out, or a dataset cannot be read.
    """
    trainings = list(read_trainings(run))
    if not trainings:
        raise FileNotFoundError(
            f"--held_out_of {run}: there is no {TRAIN_CONFIG}; give the folder of a training run."
        )
    *later, first = trainings
    rows = [task.to_row() for task in tasks]
    chosen = [
        (task, row)
        for task, row in zip(tasks, rows, strict=True)
        if is_eval_task(task_key(row, first["split_by"]), first["eval_ratio"])
    ]
    for config in later:
        trained = trained_keys(config)
        chosen = [
            (task, row) for task, row in chosen if task_key(row, config["split_by"]) not in trained
        ]
    if not chosen:
        raise ValueError(
            f"--held_out_of {run}: none of {len(tasks)} tasks is held out (split by "
            f"{first['split_by']}, eval_ratio={first['eval_ratio']})."
        )
    return [task for task, _ in chosen]
