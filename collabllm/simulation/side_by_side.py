"""The same users about the same tasks with two assistants, side by side in the terminal."""

import io
import random
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabllm.files import write_text
from collabllm.messages import Message
from collabllm.settings import setting, to_settings
from collabllm.simulation.assistant.settings import AssistantSettings
from collabllm.simulation.batch import simulate
from collabllm.simulation.session import Session
from collabllm.simulation.settings import RunSettings, UserSettings
from collabllm.tasks import Task, count_partly_told, open_with
from collabllm.tasks.settings import TaskSettings

_NAMES = {"user": "User", "assistant": "Assistant"}


@dataclass(kw_only=True)
class SideBySideSettings(RunSettings, TaskSettings, UserSettings, AssistantSettings):
    """What `compare_chats` does: `lora_path` is the trained model, the base is the other one."""

    _argument_group_name = "the conversations"

    num_shown: int = setting(2, "tasks to draw by --seed", least=1)
    max_turns: int = setting(3, "most user messages of a conversation", least=1)
    svg: str | None = setting(None, "also draw the conversations into this file", metavar="FILE")


def compare_chats(settings: SideBySideSettings | None = None, **arguments: Any) -> list[Task]:
    """Let the base model and the adapter talk with the same users, and print both.

    The first of the drawn tasks opens with no fact told, the second with some, and so on in turn.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name; they win.

    Returns:
        The tasks that were drawn, as they opened.

    Raises:
        ValueError: If there is no adapter to compare.
    """
    settings = to_settings(SideBySideSettings, settings, arguments)
    if not settings.lora_path:
        raise ValueError("--lora_path is missing: the adapter to show beside its base model.")
    tasks = draw_tasks(settings.load_tasks(), settings.num_shown, settings.seed)
    trained = _talk(settings, tasks)  # first, since an adapter may be missing
    base = _talk(replace(settings, lora_path=None), tasks)
    tables = [_to_table(task, base[task.task_id], trained[task.task_id]) for task in tasks]
    console = Console()
    for table in tables:
        console.print(table)
    if settings.svg:
        draw_svg(tables, Path(settings.svg))
        console.print(f"Picture: {settings.svg}")
    return tasks


def draw_svg(tables: Sequence[Table], file: Path) -> None:
    """Draw tables into an SVG file, 110 columns wide, whatever the terminal's width."""
    console = Console(width=110, record=True, file=io.StringIO())
    for table in tables:
        console.print(table)
    file.parent.mkdir(parents=True, exist_ok=True)
    svg = console.export_svg(title="CollabLLM")
    write_text(file, re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))  # of a web server


def draw_tasks(tasks: Sequence[Task], number: int, seed: int) -> list[Task]:
    """Draw tasks with facts; every second one opens with some of its facts told.

    Raises:
        ValueError: If there are fewer tasks with facts.
    """
    with_facts = [task for task in tasks if task.facts]
    if len(with_facts) < number:
        raise ValueError(f"--num_shown {number}: only {len(with_facts)} tasks have facts.")
    drawn = random.Random(seed).sample(with_facts, number)
    return [
        open_with(task, count_partly_told(task)) if idx % 2 else task
        for idx, task in enumerate(drawn)
    ]


def _talk(settings: SideBySideSettings, tasks: Sequence[Task]) -> dict[str, list[Message]]:
    """Return each task's conversation, by its id."""
    with ExitStack() as stack:
        session = Session(settings, stack)
        records = simulate(
            tasks,
            session.build_assistant(settings),
            session.build_user_factory(settings),
            max_turns=settings.max_turns,
            concurrency=settings.concurrency,
            seed=settings.seed,
            system_prompt=settings.system_prompt,
            ledger=session.ledger,
            progress=False,
        )
        return {record.task_id: record.result.messages for record in records}


def _to_table(task: Task, base: Sequence[Message], trained: Sequence[Message]) -> Table:
    table = Table(title=f"Held out: {task.task_desc or task.task_id}", expand=True, show_lines=True)
    table.add_column("base", ratio=1)
    table.add_column("trained", ratio=1)
    left, right = _to_cells(base), _to_cells(trained)
    for idx in range(max(len(left), len(right))):
        table.add_row(*(cells[idx] if idx < len(cells) else Text() for cells in (left, right)))
    return table


def _to_cells(messages: Sequence[Message]) -> list[Text]:
    return [
        Text(f"{_NAMES[message['role']]}: {message['content'].strip()}")
        for message in messages
        if message["role"] in _NAMES
    ]
