"""What makes a run another one, so that it cannot go on from a checkpoint."""

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
)
_TRAINERS = (
    "seed",
    "data_seed",
    "lr_scheduler_type",
    "warmup_steps",
    "gradient_accumulation_steps",
)
_COUNTS = ("rows", "training rows", "training pairs", "trained tokens")
_FLAG = "--resume_from_checkpoint"


def check_settings(checkpoint: str, settings: Any, given: Mapping[str, Any], config: type) -> None:
    """Refuse to go on with another model, data, system prompt, rate, schedule, batch or seed.

    Files may have moved: of paths the last part counts.

    Args:
        checkpoint: To go on from; its run's settings stand beside it, or nothing is compared.
        settings: Our own settings, resolved.
        given: The trainer's fields that the user set.
        config: TRL's config, for its defaults.

    Raises:
        ValueError: With the setting, its former and its present value.
    """
    file = Path(checkpoint).resolve().parent / CONFIG_FILE
    if file.is_file():
        defaults = {f.name: f.default for f in fields(config) if f.name in _TRAINERS}
        before = _compared({**defaults, **load_config(file)})
        refuse_changes(before, _compared({**defaults, **asdict(settings), **given}), flag=_FLAG)


def check_data(checkpoint: str, facts: Mapping[str, Any]) -> None:
    """Refuse to go on with data that has another number of rows or tokens.

    Raises:
        ValueError: With the former and the present number.
    """
    before = read_run_facts(Path(checkpoint).resolve().parent).get("data", {})
    refuse_changes(before, count_data(facts), what="the number of ", flag=_FLAG)


def count_data(facts: Mapping[str, Any]) -> dict[str, int]:
    """Take the numbers of a run's facts by which its training data is known again."""
    return {name: facts[name] for name in _COUNTS if name in facts}


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    compared = {name: settings[name] for name in (*_OWN, *_TRAINERS) if name in settings}
    if "batch_size" in settings:
        own = settings["batch_size"]
        compared["batch_size"] = settings.get("per_device_train_batch_size", own)
    for name in _PATHS:
        paths = settings.get(name)
        paths = paths if isinstance(paths, list) else [paths]
        if name in settings:
            compared[name] = [path and Path(path).name for path in paths]
    return compared
