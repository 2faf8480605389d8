"""Tasks: a hidden goal, its reference, what the user knows; from files, datasets or the demo."""

from collabllm.tasks.demo import demo_tasks
from collabllm.tasks.loading import DEMO_TASKS, choose_side, load_tasks
from collabllm.tasks.task import (
    Fact,
    Opening,
    Task,
    count_partly_told,
    open_in_turn,
    open_with,
    to_task,
)

__all__ = [
    "DEMO_TASKS",
    "Fact",
    "Opening",
    "Task",
    "choose_side",
    "count_partly_told",
    "demo_tasks",
    "load_tasks",
    "open_in_turn",
    "open_with",
    "to_task",
]
