"""Which metrics no task of a run can have, told before work instead of a column of nothing."""

import logging
from collections.abc import Iterable, Mapping, Sequence

from collabllm.rewards.registry import Need, needs_of
from collabllm.tasks import Task

logger = logging.getLogger(__name__)

_HELP: Mapping[Need, str] = {
    "facts": (
        "A fact is what the user knows and tells when asked: a row's column `facts` is a list like "
        '[{"name": "guests", "answer": "We are 12.", "value": "12", "question": "How many?"}], '
        "where name and answer are needed. Tasks with single_turn_prompt alone can be rewarded by "
        "metrics that need a judge (--judge_model, interactivity) or a reference "
        "(single_turn_completion: accuracy, bleu), with a user played by a model (--user openai)."
    ),
    "reference": (
        "A reference is a good result, a row's column `single_turn_completion` (--task_columns "
        "names one that is called otherwise)."
    ),
    "tests": "Tests are Python code in a row's `single_turn_metadata.test`.",
}
"""What a task may lack, and how it comes to have it."""


def check_applicable(metrics: Iterable[str], tasks: Sequence[Task], *, alone: bool = False) -> None:
    """Refuse metrics of which none can have a value, and warn of single ones and of useless tests.

    Args:
        metrics: By name, with or without extractor.
        tasks: Tasks of the run.
        alone: Whether nothing else tells replies apart, so that tasks without them are useless.

    Raises:
        ValueError: If all metrics need what no task has: facts, a reference or tests.
    """
    names = list(metrics)
    if any("tests" in needs_of(name) for name in names):
        _warn_of_tests(tasks)
    lacking: set[str] = set()
    texts = []
    for need, remedy in _HELP.items():
        without = [name for name in names if need in needs_of(name)]
        if without and not any(_has(task, need) for task in tasks):
            lacking.update(without)
            needing = f"{', '.join(without)} need{'s' * (len(without) == 1)}"
            texts.append(f"None of the {len(tasks)} tasks has {need}, which {needing}. {remedy}")
    if texts and lacking >= set(names):
        raise ValueError(" ".join(texts))
    for text in texts:
        logger.warning("ATTENTION: %s", text)
    bare = [task for task in tasks if not any(_fits(name, task) for name in names)]
    if alone and names and bare:
        logger.warning(
            "ATTENTION: %d of %d tasks, for example %s, lack what %s need: nothing tells their "
            "replies apart. Leave such tasks out.",
            len(bare),
            len(tasks),
            bare[0].task_id,
            ", ".join(names),
        )


def _fits(name: str, task: Task) -> bool:
    return all(_has(task, need) for need in needs_of(name) & _HELP.keys())


def _has(task: Task, need: Need) -> bool:
    if need == "facts":
        return bool(task.facts)
    if need == "reference":
        return bool(task.single_turn_completion.strip())
    from collabllm.rewards.metrics.code import tests_of_task

    return bool(tests_of_task(task))


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
