"""What an ablation refuses before its first training: data and evaluations that do not fit."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from collabllm.data_processing.selection import select_replies
from collabllm.data_processing.splitting import check_split_column
from collabllm.evaluation.run import plan_evaluation
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.simulation.session import Session
from collabllm.tasks import Task
from collabllm.training.data import load_rows
from collabllm.training.grpo_settings import GRPOSettings


def check_data(settings: Any) -> None:
    """Read the tasks or rows of a training as it will read them.

    Args:
        settings: Those of the training's method.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If rows, tasks, scores or the column of the split do not fit.
    """
    if isinstance(settings, GRPOSettings):
        settings.open_tasks("train")
        settings.open_tasks("eval")
        if settings.prompts != "turns":
            return
    rows = load_rows(settings)
    check_split_column(rows, settings.split_by)
    select_replies(rows, settings.score_column, None, None, settings.split_by)


def check_evaluation(settings: EvaluationSettings, folder: Path) -> list[Task]:
    """Plan an evaluation as if its arms, and a run to hold out of, were not to be trained first.

    Args:
        settings: Settings of the evaluation.
        folder: One without an evaluation; nothing is written there.

    Returns:
        Its tasks; with `held_out_of` those that it chooses from.

    Raises:
        FileNotFoundError: If a file of tasks is not there.
        ValueError: If a setting, a metric or a primary outcome does not fit.
    """
    settings = replace(
        settings,
        arm=[f"name={arm.name}" for arm in settings.arms],
        held_out_of=None,
        num_tasks=None if settings.held_out_of else settings.num_tasks,
        output_dir=str(folder),
        cache=None,
        replay=None,
    )
    with ExitStack() as stack:
        tools = settings.build_tools(Session(settings, stack))
        return plan_evaluation(settings, tools).tasks
