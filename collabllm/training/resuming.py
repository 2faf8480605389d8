"""What makes a run another one, so that it cannot go on from a checkpoint."""

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from collabllm.provenance import refuse_changes
from collabllm.settings import load_config
from collabllm.training.card import CONFIG_FILE, METRICS_FILE
from collabllm.training.checkpoints import is_finished, read_run_facts
from collabllm.training.method import Method
from collabllm.training.trainer_config import read_trainer_fields

_PATHS = ("hf_model_path", "lora_path", "hf_dataset_path", "tasks")
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
    "max_length",
    "learning_rate",
    # of SFT and DPO
    "turns",
    "first_token_weight",
    "lower_bound_metric",
    "lower_bound_percentile",
    "min_score_gap",
    "min_confidence",
    # of online training
    "credit",
    "prompts",
    "num_told",
    "window",
    "num_samples",
    "weights",
    "token_penalty",
    "max_turns",
    "train_first_token",
    "user",
    "user_model",
    "judge_model",
)
_TRAINERS = (
    "seed",
    "data_seed",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "loss_type",
    "label_smoothing",
    "label_smoothing_factor",
    "beta",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "num_generations",
    "num_iterations",
    "max_completion_length",
    "epsilon",
    "epsilon_high",
    "delta",
    "scale_rewards",
    "chat_template_kwargs",
)
_ACCUMULATION = "gradient_accumulation_steps"
# What holds where a former version's settings lack it.
_WITHOUT = {"first_token_weight": 1.0, "train_first_token": True}
_COUNTS = ("rows", "training rows", "training pairs", "trained tokens", "prompts")
_WORDS = {"flag": "--resume_from_checkpoint", "remedy": "start anew in another --output_dir"}


def check_settings(folder: Path, settings: Any, given: Mapping[str, Any], method: Method) -> None:
    """Refuse to go on with another model, data, system prompt, loss, rate, schedule, batch or seed.

    Files may have moved: of paths the last part counts. Rows a step are compared where the number
    of processes is the same.

    Args:
        folder: The run's, with its settings, or nothing is compared.
        settings: Our own settings, resolved.
        given: The trainer's fields that the user set.
        method: Of the run, for the trainer's defaults.

    Raises:
        ValueError: With the setting, its former and its present value.
    """
    if not (folder / CONFIG_FILE).is_file():
        return
    defaults = _defaults(method, settings)
    kept = {**_WITHOUT, **defaults, **load_config(folder / CONFIG_FILE)}
    before = _compared(kept, method.config_class)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if read_run_facts(folder).get("num_processes", processes) != processes:
        before.pop("rows a step", None)
    now = _compared({**defaults, **asdict(settings), **given}, method.config_class)
    refuse_changes(before, now, **_WORDS)


def is_complete(
    folder: Path, settings: Any, given: Mapping[str, Any], checkpoint: str | None
) -> bool:
    """Tell whether a folder holds the results of a run that is as long as this one is to be.

    Args:
        folder: The output folder.
        settings: Our own settings, resolved.
        given: The trainer's fields that the user set.
        checkpoint: What a longer run could go on from.

    Raises:
        ValueError: If this one is to be longer, and there is no checkpoint.
    """
    if not is_finished(folder):
        return False
    kept = load_config(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    before, asked = _length(kept), _length({**asdict(settings), **given})
    if not kept or before == asked:
        return True
    log = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))["log_history"]
    steps, epochs = (max((e.get(name, 0) for e in log), default=0) for name in ("step", "epoch"))
    if steps >= asked["max_steps"] > 0 or epochs >= asked["num_train_epochs"] > 0:
        return True
    if checkpoint is None:
        raise ValueError(
            f"--resume_from_checkpoint auto: {folder} holds a run of {steps} steps that is over, "
            "and no checkpoint that a longer one could go on from. Give the former --max_steps and "
            "--num_train_epochs, or start anew in another --output_dir."
        )
    return False


def _length(values: Mapping[str, Any]) -> dict[str, Any]:
    steps = int(values.get("max_steps") or -1)
    return {
        "max_steps": steps,
        "num_train_epochs": 0 if steps > 0 else float(values.get("num_train_epochs") or 3),
        "max_generated_tokens": values.get("max_generated_tokens"),
    }


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


def _defaults(method: Method, settings: Any) -> dict[str, Any]:
    """Return what the trainer's fields are where the user sets none of them."""
    values = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory()
        for f in fields(method.config_class)
    }
    values |= method.config_fields(settings)
    return {name: values[name] for name in (*_TRAINERS, _ACCUMULATION) if name in values}


def _compared(settings: Mapping[str, Any], config_class: type) -> dict[str, Any]:
    known = {f.name for f in fields(config_class)}
    of_trainer = {n: settings[n] for n in _TRAINERS if n in settings and n in known}
    compared = {name: settings[name] for name in _OWN if name in settings}
    compared |= read_trainer_fields(config_class, of_trainer)
    if "batch_size" in settings:
        rows = settings.get("per_device_train_batch_size", settings["batch_size"])
        compared["rows a step"] = int(rows) * int(settings.get(_ACCUMULATION, 1))
    for name in _PATHS:
        paths = settings.get(name)
        paths = paths if isinstance(paths, list) else [paths]
        if name in settings:
            compared[name] = [path and Path(path).name for path in paths]
    plain: dict[str, Any] = json.loads(json.dumps(compared))  # as the run's file has them
    return plain
