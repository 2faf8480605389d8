"""Corrections of a model's own questions: what to ask when they did not bring all that is missing.

A model that learned from good conversations alone meets none in which its question failed, and
asks nothing more, or the same again. Here it opens the conversations itself; the task's own
questions and reference say what is good to reply next.

Source: DAgger, Ross, Gordon and Bagnell, "A Reduction of Imitation Learning and Structured
Prediction to No-Regret Online Learning", 2011.
"""

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from collabllm.cli import go_on_with
from collabllm.data.task_bank import end_sentence
from collabllm.data_engine.settings import CorrectionSettings
from collabllm.errors import IncompleteRunError, SimulationError
from collabllm.event_loop import run
from collabllm.files import write_text
from collabllm.messages import Message
from collabllm.provenance import RunHeader
from collabllm.settings import deciding_values, to_settings
from collabllm.simulation.batch import UserFactory, simulate
from collabllm.simulation.record import Record
from collabllm.simulation.session import Session
from collabllm.simulation.settings import TRANSCRIPTS_FILE
from collabllm.simulation.simulator import derive_seed
from collabllm.simulation.transcripts import read_transcripts
from collabllm.tasks import Fact, Task, open_with
from collabllm.tasks.matching import facts_told
from collabllm.tasks.requests import find_questions

logger = logging.getLogger(__name__)

DATA_FILE = "train.jsonl"
_HEADER_FILE = "corrections.json"
_LISTED = 0.7  # share of several questions that is a numbered list

Row = dict[str, Any]


def correct_questions(settings: CorrectionSettings | None = None, **arguments: Any) -> Path:
    """Let a model open conversations, and write what is good to reply after its questions.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name, such as `num_tasks=4`; they win.

    Returns:
        The file of rows, in the dataset format; every reply in it is good, and what the model
        asked before it is context.

    Raises:
        FileExistsError: If the output exists and `resume` is False.
        IncompleteRunError: If too many conversations failed, or no reply asked for anything.
        ValueError: If a setting does not fit, or no task has facts with questions.
    """
    settings = to_settings(CorrectionSettings, settings, arguments)
    asking = [task for task in settings.load_tasks() if any(f.question for f in task.facts)]
    if not asking:
        raise ValueError(
            f"--tasks {settings.tasks}: no task has facts with a `question`, which the corrections "
            "are made of."
        )
    tasks = [
        open_with(task, settings.num_told[idx % len(settings.num_told)])
        for idx, task in enumerate(asking)
    ]
    folder = Path(settings.output_dir)
    if (folder / DATA_FILE).exists():
        raise FileExistsError(f"{folder / DATA_FILE} exists; choose another --output_dir.")
    header = RunHeader(folder / _HEADER_FILE, deciding_values(settings), resume=settings.resume)
    with ExitStack() as stack:
        session = Session(settings, stack)
        user_factory = session.build_user_factory(settings)
        session.preflight(settings.models_behind_servers())
        folder.mkdir(parents=True, exist_ok=True)
        assistant = session.build_assistant(settings)
        header.write()
        batch = simulate(
            tasks,
            assistant,
            user_factory,
            max_turns=1,
            concurrency=settings.concurrency,
            seed=settings.seed,
            output=folder / TRANSCRIPTS_FILE,
            resume=settings.resume,
            system_prompt=settings.system_prompt,
            ledger=session.ledger,
        )
        try:
            for _ in batch:
                pass
        except (KeyboardInterrupt, IncompleteRunError) as error:
            kept = f"What has ended is kept in {folder}. {go_on_with(resume=True)}"
            raise type(error)(f"{error} {kept}") from None
        records = map(Record.from_json, read_transcripts(folder / TRANSCRIPTS_FILE))
        opened = {r.task_id: r.result.messages for r in records if not r.result.why_unscored}
        talks = [(task, opened[task.task_id]) for task in tasks if task.task_id in opened]
        rows, counts = run(_correct_all(talks, user_factory, settings))
    if not rows:
        raise IncompleteRunError(
            f"No reply of {len(talks)} asked for anything: nothing to correct."
        )
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / DATA_FILE, "".join(lines))
    print(", ".join(f"{number} {kind}" for kind, number in counts.items()))
    print(f"Rows: {folder / DATA_FILE}")
    return folder / DATA_FILE


async def _correct_all(
    talks: Sequence[tuple[Task, Sequence[Message]]],
    user_factory: UserFactory,
    settings: CorrectionSettings,
) -> tuple[list[Row], Counter[str]]:
    counts: Counter[str] = Counter()
    found = await asyncio.gather(
        *(_correct(task, messages, user_factory, settings, counts) for task, messages in talks)
    )
    return [row for rows in found for row in rows], counts


async def _correct(
    task: Task,
    messages: Sequence[Message],
    user_factory: UserFactory,
    settings: CorrectionSettings,
    counts: Counter[str],
) -> list[Row]:
    """Return the rows of one conversation; none where the model asked nothing, or all is over."""
    spoken = [message for message in messages if message["role"] != "system"][:2]
    asked = find_questions(spoken[-1]["content"])
    if not asked:
        counts["first replies without a question"] += 1
        return []
    seed = derive_seed(settings.seed, task.task_id, "correction")
    try:
        answer = await user_factory(task, seed).agenerate(spoken, seed=seed)
    except SimulationError as error:
        logger.warning("%s: the user failed: %s", task.task_id, error)
        counts["users that failed"] += 1
        return []
    if answer.is_terminal:
        counts["conversations that the user ended"] += 1
        return []
    talk: list[Message] = [*spoken, {"role": "user", "content": answer.response}]
    told = facts_told(task.facts, talk)
    left = [
        fact
        for fact in task.facts
        if fact.name not in told and not any(fact.question in text for text in asked)
    ]
    random_ = random.Random(seed)
    wanted = [fact for fact in left if fact.question]
    if not wanted:
        is_over = not left and task.single_turn_completion
        counts["references"] += bool(is_over)
        return [_to_row(task, talk, task.single_turn_completion)] if is_over else []
    reply = _ask_for(wanted, random_)
    counts["corrections"] += 1
    rows = [_to_row(task, talk, reply)]
    if task.single_turn_completion and random_.random() < settings.finished_share:
        counts["references"] += 1
        says = " ".join(end_sentence(fact.answer) for fact in wanted)
        told_all: list[Message] = [
            *talk,
            {"role": "assistant", "content": reply},
            {"role": "user", "content": says},
        ]
        rows.append(_to_row(task, told_all, task.single_turn_completion))
    return rows


def _ask_for(facts: Sequence[Fact], random_: random.Random) -> str:
    questions = [fact.question for fact in facts]
    if len(questions) > 1 and random_.random() < _LISTED:
        return "\n".join(f"{idx}. {text}" for idx, text in enumerate(questions, start=1))
    return " ".join(questions)


def _to_row(task: Task, prompt: Sequence[Message], reply: str) -> Row:
    return {
        "prompt": list(prompt),
        "completion": reply,
        "conv_id": task.task_id,
        "turn_id": len(prompt),
        "score": 1.0,
        "single_turn_prompt": task.single_turn_prompt,
        "single_turn_completion": task.single_turn_completion,
        "single_turn_metadata": dict(task.metadata),
    }
