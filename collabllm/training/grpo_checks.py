"""What online training refuses or warns of before any weights load."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from transformers.trainer_utils import SaveStrategy

from collabllm.rewards.registry import check_metrics, needs_of
from collabllm.simulation.session import Session
from collabllm.tasks import Task
from collabllm.training.checkpoints import read_state
from collabllm.training.grpo_settings import GRPOSettings
from collabllm.training.grpo_vllm import check_vllm

logger = logging.getLogger(__name__)

_OF_REPLIES = ("min_p", "repetition_penalty", "generation_kwargs", "cache_implementation")
"""Fields of TRL's own generation, which writes replies but no conversations."""


_OF_ROWS = ("dataset_weights", "skip_bad_rows")
"""Settings of rows with replies, which tasks are not loaded by."""


def check_online(settings: GRPOSettings, config: Any) -> None:
    """Refuse metrics that are unknown or lack what they need, and flags that do not work together.

    Args:
        settings: Settings of the run.
        config: TRL's.

    Raises:
        SandboxUnavailableError: If a metric would run model-written code without isolation.
        ValueError: If something does not fit.
    """
    for name in settings.reward.weights:
        needs_of(name)  # an unknown one comes first
    with ExitStack() as stack:
        session = Session(replace(settings, cache=None, replay=None), stack)  # opens no file
        tools = settings.build_tools(session)
    check_metrics(settings.reward.weights, replace(tools, count_tokens=len))
    if config.use_vllm:
        check_vllm(settings, config)
    unread = [name for name in _OF_ROWS if getattr(settings, name)]
    if settings.prompts == "turns" and "skip_bad_rows" in unread:
        unread.remove("skip_bad_rows")
    if unread:
        raise ValueError(
            f"{unread[0]} does not work here: prompts come from tasks, one weight each. Write "
            "the rows that are wanted to a file, or to a folder by datasets' save_to_disk."
        )
    if settings.max_eval_pairs != GRPOSettings.max_eval_pairs:
        raise ValueError(
            "max_eval_pairs does not work here: conversations are held out, not replies to rank. "
            "Give --max_eval_tasks."
        )
    _check_generation(settings, config)


def _check_generation(settings: GRPOSettings, config: Any) -> None:
    if not config.temperature > 0:
        raise ValueError(
            f"temperature must be above 0, got {config.temperature:g}: the replies of a group must "
            "differ."
        )
    if not 0 < config.top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {config.top_p:g}; 1 takes all tokens.")
    if (config.top_k or 0) < 0:
        raise ValueError(f"top_k must not be negative, got {config.top_k}; 0 takes all tokens.")
    if config.use_transformers_continuous_batching:
        raise ValueError(
            "use_transformers_continuous_batching does not work here: at every step TRL would "
            "round the float32 adapter to the type of the base model. Leave it out; --use_vllm "
            "true is faster, too."
        )
    ignored = [name for name in _OF_REPLIES if getattr(config, name) not in (None, 1.0, {})]
    if settings.credit == "conversation" and ignored:
        raise ValueError(
            f"{ignored[0]} does not work with --credit conversation, whose policy samples by "
            "temperature, top_p and top_k. Leave it out."
        )
    if config.max_completion_length is None:
        raise ValueError("max_completion_length must be a number, got None.")
    if config.max_completion_length >= settings.max_length:
        raise ValueError(
            f"max_completion_length={config.max_completion_length} leaves no room for a prompt "
            f"in max_length={settings.max_length}."
        )
    num_replies = config.per_device_train_batch_size * config.steps_per_generation
    is_split = config.world_size > 1 and num_replies % config.num_generations
    if settings.prompts == "own_turns" and is_split:
        raise ValueError(
            f"--prompts own_turns needs whole groups in each process, and {num_replies} replies "
            f"are no multiple of num_generations={config.num_generations}: the parts of a group "
            "would answer different prompts. Raise --batch_size."
        )


def check_goals(
    settings: GRPOSettings,
    goals: Sequence[str],
    train_tasks: Sequence[Task],
    eval_tasks: Sequence[Task],
) -> None:
    """Refuse prompts whose task is not known, and those that are about a held-out task.

    Args:
        settings: Settings of the run.
        goals: `single_turn_prompt` of the prompts.
        train_tasks: Tasks to train on.
        eval_tasks: Those held out.

    Raises:
        ValueError: If there are some.
    """
    held_out = {task.single_turn_prompt for task in eval_tasks}
    known = held_out | {task.single_turn_prompt for task in train_tasks}
    unknown, leaked = set(goals) - known, set(goals) & held_out
    needs_facts = any("facts" in needs_of(name) for name in settings.weights)
    if settings.tasks and unknown and needs_facts:
        raise ValueError(
            f"{len(unknown)} of the {len(set(goals))} goals of the prompts have no task in --tasks "
            f"{settings.tasks}, so what their users know is not known. Give the tasks that "
            "--hf_dataset_path was made from, or leave --tasks out."
        )
    if leaked:
        raise ValueError(
            f"{len(leaked)} of {len(held_out)} held-out tasks are among the prompts: --split_by "
            f"{settings.split_by} does not split rows and tasks alike. Give --split_by "
            "single_turn_prompt."
        )


def warn_of_reuse(config: Any, checkpoint: str | None) -> None:
    """Say where a resumed run is not that which an unbroken one would have been.

    Replies that serve several steps are not in a checkpoint: a run resumed between writes new ones.

    Args:
        config: TRL's.
        checkpoint: What the run goes on from, if it does.
    """
    num_batches = config.steps_per_generation * config.num_iterations
    per_step = config.gradient_accumulation_steps
    cycle = math.lcm(num_batches, per_step) // per_step
    if cycle == 1:
        return
    is_aligned = config.save_strategy == SaveStrategy.STEPS and config.save_steps % cycle == 0
    if config.save_strategy != SaveStrategy.NO and not is_aligned:
        logger.warning(
            "Replies serve %d steps, and no checkpoint has them: a run resumed in between writes "
            "new ones, and ends otherwise than an unbroken one. Give --save_steps a multiple of "
            "%d.",
            cycle,
            cycle,
        )
    if checkpoint and read_state(checkpoint).global_step % cycle:
        logger.warning(
            "%s lies within the %d steps that replies serve: new ones are written, so this run "
            "ends otherwise than an unbroken one.",
            checkpoint,
            cycle,
        )
