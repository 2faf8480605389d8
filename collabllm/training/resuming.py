"""What makes a run another one, so that it cannot go on from a checkpoint."""

import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from collabllm.provenance import refuse_changes
from collabllm.settings import load_config
from collabllm.training.card import CONFIG_FILE
from collabllm.training.checkpoints import read_run_facts

_PATHS = ("hf_model_path", "lora_path", "hf_dataset_path")
_OWN = (
    "model_revision",
    "load_in_4bit",
    "dataset_split",
    "dataset_config",
    "dataset_weights",
    "system_prompt",
    "score_column",
    "eval_ratio",
    "split_by",
    "learning_rate",
    "first_token_weight",
)
_TRAINERS = (
    "seed",
    "data_seed",
    "lr_scheduler_type",
    "warmup_steps",
)
_ACCUMULATION = "gradient_accumulation_steps"
_WITHOUT = {"first_token_weight": 1.0}  # what holds where a former version's settings lack it
_COUNTS = ("rows", "training rows", "training pairs", "trained tokens")
_WORDS = {"flag": "--resume_from_checkpoint", "remedy": "start anew in another --output_dir"}


def check_settings(checkpoint: str, settings: Any, given: Mapping[str, Any], config: type) -> None:
    """Refuse to go on with another model, data, system prompt, rate, schedule, batch or seed.

    Files may have moved: of paths the last part counts. Rows a step are compared where the number
    of processes is the same.

    Args:
        checkpoint: To go on from; its run's settings stand beside it, or nothing is compared.
        settings: Our own settings, resolved.
        given: The trainer's fields that the user set.
        config: TRL's config, for its defaults.

    Raises:
        ValueError: With the setting, its former and its present value.
    """
    folder = Path(checkpoint).resolve().parent
    if not (folder / CONFIG_FILE).is_file():
        return
    names = (*_TRAINERS, _ACCUMULATION)
    defaults = {f.name: f.default for f in fields(config) if f.name in names}
    before = _compared({**_WITHOUT, **defaults, **load_config(folder / CONFIG_FILE)})
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if read_run_facts(folder).get("num_processes", processes) != processes:
        before.pop("rows a step", None)
    refuse_changes(before, _compared({**defaults, **asdict(settings), **given}), **_WORDS)


def check_data(checkpoint: str, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with data that has another number of rows or tokens.

    Raises:
        ValueError: With the former and the present number.
    """
    before = read_run_facts(Path(checkpoint).resolve().parent).get("data", {})
    refuse_changes(before, count_data(facts), what="the number of ", **_WORDS)


def count_data(facts: Mapping[str, Any]) -> dict[str, int]:
    """Take the numbers of a run's facts by which its training data is known again."""
    return {name: facts[name] for name in _COUNTS if name in facts}


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    compared = {name: settings[name] for name in (*_OWN, *_TRAINERS) if name in settings}
    if "batch_size" in settings:
        rows = settings.get("per_device_train_batch_size", settings["batch_size"])
        compared["rows a step"] = int(rows) * int(settings.get(_ACCUMULATION, 1))
    for name in _PATHS:
        paths = settings.get(name)
        paths = paths if isinstance(paths, list) else [paths]
        if name in settings:
            compared[name] = [path and Path(path).name for path in paths]
    return compared
