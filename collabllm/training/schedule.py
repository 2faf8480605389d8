"""How long a run is, what that is worth, and when it evaluates and saves on its way."""

import math
from collections.abc import Collection
from typing import Any

from transformers.trainer_utils import IntervalStrategy, SaveStrategy

LONG_RUN_STEPS = 100
SHARE_BETWEEN = 0.1
# Measured with LoRA r=16 on a 135M model: 24 steps at 2e-5 (5e-4 in all) leave the replies as they
# were, at 2e-4 (5e-3) they change.
_LEAST_PATH = 1e-3


def count_steps(num_rows: int, config: Any) -> int:
    """Return the optimizer steps of a run over rows that are not packed."""
    if config.max_steps > 0:
        return int(config.max_steps)
    batch = config.per_device_train_batch_size * config.world_size
    batches = math.ceil(num_rows / batch)
    steps: int = max(1, math.ceil(batches / config.gradient_accumulation_steps))
    epochs = float(config.num_train_epochs)
    return math.ceil(steps * epochs)


def describe_steps(num_rows: int, config: Any) -> str:
    """Say how many steps a run has, and whether they are too few to change anything.

    Adam moves a weight by about the learning rate at every step, and an adapter starts from zero.
    """
    steps = count_steps(num_rows, config)
    text = f"{steps:,} optimizer steps at learning rate {config.learning_rate:g}"
    if steps * config.learning_rate >= _LEAST_PATH:
        return text
    return (
        f"{text}: TOO FEW to change what the model says. Use more data, more --num_train_epochs, "
        "or a higher --learning_rate."
    )


def plan_evaluation(config: Any, given: Collection[str], num_rows: int, has_eval: bool) -> None:
    """Let a long run evaluate and save after every tenth of its steps, and remember the best.

    Args:
        config: TRL's, changed in place; what the user set stays. Steps to evaluate at are enough
            for a run of any length to evaluate.
        given: Names of the fields that the user set.
        num_rows: Number of training rows.
        has_eval: Whether anything is held out.

    Raises:
        ValueError: If the user asks for evaluations and nothing is held out, or for the best
            checkpoint and not by what.
    """
    asked = {"eval_strategy", "eval_steps"} & set(given)
    if has_eval:
        _plan(config, given, asked, num_rows)
    elif config.eval_strategy != IntervalStrategy.NO or asked == {"eval_steps"}:
        raise ValueError(
            "--eval_strategy and --eval_steps need held-out data, and there is none: raise "
            "--eval_ratio, or leave them out."
        )
    if config.save_strategy == SaveStrategy.BEST and config.metric_for_best_model is None:
        raise ValueError(
            "--save_strategy best needs to know by what: give --metric_for_best_model, such as "
            "eval_loss, and --eval_steps."
        )


def _plan(config: Any, given: Collection[str], asked: Collection[str], num_rows: int) -> None:
    is_long = count_steps(num_rows, config) >= LONG_RUN_STEPS
    if "eval_strategy" not in asked and (asked or is_long):
        config.eval_strategy = IntervalStrategy.STEPS
        config.eval_steps = config.eval_steps if asked else SHARE_BETWEEN
    if not is_long:
        return
    if not {"save_strategy", "save_steps"} & set(given):
        config.save_strategy, config.save_steps = IntervalStrategy.STEPS, SHARE_BETWEEN
        if "save_total_limit" not in given:
            config.save_total_limit = 2
    if config.metric_for_best_model is None and config.eval_strategy != IntervalStrategy.NO:
        config.metric_for_best_model, config.greater_is_better = "eval_loss", False
