"""Which metrics no task of a run can have, told before work instead of a column of nothing."""

import logging
from collections.abc import Iterable, Sequence

from collabllm.rewards.registry import needs_of
from collabllm.tasks import Task

logger = logging.getLogger(__name__)

_HELP = (
    "A fact is what the user knows and tells when asked: a row's column `facts` is a list like "
    '[{"name": "guests", "answer": "We are 12.", "value": "12", "question": "How many guests?"}], '
    "where name and answer are needed. Tasks with single_turn_prompt alone can be rewarded by "
    "metrics that need a judge (--judge_model, interactivity) or a reference "
    "(single_turn_completion: accuracy, bleu), with a user played by a model (--user openai)."
)


def check_applicable(metrics: Iterable[str], tasks: Sequence[Task]) -> None:
    """Refuse metrics of which none can have a value, and warn of single ones and of useless tests.

    Args:
        metrics: By name, with or without extractor.
        tasks: Tasks of the run.

    Raises:
        ValueError: If all metrics need facts and no task has any.
    """
    names = list(metrics)
    if any(name.rpartition("->")[2] == "pass_rate" for name in names):
        _warn_of_tests(tasks)
    without = [name for name in names if "facts" in needs_of(name)]
    if not without or any(task.facts for task in tasks):
        return
    text = f"None of the {len(tasks)} tasks has facts, which {', '.join(without)} need. {_HELP}"
    if len(without) == len(names):
        raise ValueError(text)
    logger.warning("ATTENTION: %s", text)


def _warn_of_tests(tasks: Sequence[Task]) -> None:
    from collabllm.rewards.metrics.code import tests_of_task
    from collabllm.rewards.sandbox.written_tests import check_tests

    tested = [task for task in tasks if tests_of_task(task)]
    errors = []
    for task in tested:
        try:
            check_tests(tests_of_task(task), str(task.metadata.get("entry_point") or ""))
        except ValueError as error:
            errors.append(f"task {task.task_id}: {error}")
    if errors:
        logger.warning(
            "ATTENTION: pass_rate has no value for %d of %d tasks with tests, for example %s.",
            len(errors),
            len(tested),
            "; ".join(errors[:3]),
        )
