"""Corrections of a model's own questions: what is good to say instead of them, and after them.

A model that learned from good conversations alone meets none in which its question failed, and
asks nothing more, or the same again. So it talks itself; the task's own questions and reference
say what is good to reply.

Source: DAgger, Ross, Gordon and Bagnell, "A Reduction of Imitation Learning and Structured
Prediction to No-Regret Online Learning", 2011.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabllm.data.task_bank import end_sentence
from collabllm.data_engine.settings import CorrectionSettings
from collabllm.files import write_text
from collabllm.messages import Message
from collabllm.settings import to_settings
from collabllm.simulation.record import Record
from collabllm.simulation.transcripts import read_transcripts
from collabllm.tasks import Fact, Task
from collabllm.tasks.matching import facts_told
from collabllm.tasks.requests import find_questions

DATA_FILE = "train.jsonl"
_ENDS = (".", "?", "\uff1f", "\u061f")
_LISTED = 0.7  # share of several questions that is a numbered list

Row = dict[str, Any]


def correct_questions(settings: CorrectionSettings | None = None, **arguments: Any) -> Path:
    """Write what is good to reply after a model's questions, in conversations that it has had.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name, such as `finished_share=0`; they win.

    Returns:
        The file of rows, in the dataset format; every reply in it is good, and what the model
        said before it is context.

    Raises:
        FileExistsError: If there are rows already.
        FileNotFoundError: If there are no transcripts.
        ValueError: If there is nothing to correct; the message says what there is.
    """
    settings = to_settings(CorrectionSettings, settings, arguments)
    file = Path(settings.output_dir) / DATA_FILE
    if file.exists():
        raise FileExistsError(f"{file} exists; choose another --output_dir.")
    if not settings.transcripts_file.is_file():
        raise FileNotFoundError(f"{settings.transcripts_file}: there are no transcripts.")
    tasks = {task.task_id: task for task in settings.load_tasks()}
    counts: Counter[str] = Counter()
    rows: list[Row] = []
    for line in read_transcripts(settings.transcripts_file):
        record = Record.from_json(line)
        task = _find_task(tasks, record)
        if task is None or record.result.why_unscored:
            counts["conversations about other tasks" if task is None else "failed ones"] += 1
        else:
            rows += _correct(record, task, settings, counts)
    found = ", ".join(f"{number} {what}" for what, number in counts.items())
    if not rows:
        raise ValueError(
            f"{settings.transcripts_file}: nothing to correct ({found or 'it is empty'}). A user "
            "must have answered a question (simulate_chats.py --max_turns 2), and the task's facts "
            "need a `question`."
        )
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{found}. Rows: {file}")
    return file


def _find_task(tasks: Mapping[str, Task], record: Record) -> Task | None:
    """Return the task of a conversation, whose opening may have told some of its facts.

    One with its id and another goal is another task.
    """
    found = (tasks.get(name) for name in (record.task_id, record.task_id.rpartition("+")[0]))
    return next((task for task in found if task and task.single_turn_prompt == record.goal), None)


def _correct(
    record: Record, task: Task, settings: CorrectionSettings, counts: Counter[str]
) -> Iterator[Row]:
    """Yield rows for each answered reply that asked, or was the first and should have."""
    spoken = [message for message in record.result.messages if message["role"] != "system"]
    if not task.facts and spoken[0]["content"] != task.single_turn_prompt:
        counts["conversations of which nobody knows what is missing"] += 1
        return
    asked: list[str] = []
    for turn in range(1, len(spoken) - 1, 2):
        before, after = spoken[:turn], spoken[: turn + 2]
        name = f"{record.task_id}-{record.rollout_idx}-{turn}"
        random_ = random.Random(f"{settings.seed}-{name}")
        if questions := find_questions(spoken[turn]["content"]):
            asked += questions
            rows = list(_go_on(task, after, asked, settings.finished_share, random_))
            counts["corrections" if rows else "turns at which nothing could be asked"] += 1
            yield from ({**row, "conv_id": name} for row in rows)
            if task.single_turn_completion and not _find_missing(task, before):
                counts["needless questions"] += 1
                row = _to_row(task, before, task.single_turn_completion)
                yield {**row, "conv_id": f"{name}-instead"}
        elif turn == 1 and (missed := _can_be_asked(_find_missing(task, before))):
            counts["first replies that should have asked"] += 1
            row = _to_row(task, before, _ask_for(missed, random_))
            yield {**row, "conv_id": f"{name}-instead"}
        else:
            counts["turns without a question"] += 1


def _find_missing(task: Task, talk: Sequence[Message]) -> list[Fact]:
    told = facts_told(task.facts, talk)
    return [fact for fact in task.facts if fact.name not in told]


def _can_be_asked(facts: Sequence[Fact]) -> list[Fact]:
    return [fact for fact in facts if _find_sentences(fact.question)]


def _go_on(
    task: Task,
    talk: Sequence[Message],
    asked: Sequence[str],
    finished_share: float,
    random_: random.Random,
) -> Iterator[Row]:
    """Ask for what is missing and was not asked for; where nothing is missing, do the task."""
    missing = _find_missing(task, talk)
    wanted = [
        fact
        for fact in missing
        if (asks := _find_sentences(fact.question))
        and not any(ask in said for ask in asks for said in asked)
    ]
    result = task.single_turn_completion
    if wanted:
        reply = _ask_for(wanted, random_)
        yield _to_row(task, talk, reply)
        if result and len(wanted) == len(missing) and random_.random() < finished_share:
            said = " ".join(end_sentence(fact.answer) for fact in wanted)
            ask, answer = (
                Message(role="assistant", content=reply),
                Message(role="user", content=said),
            )
            yield _to_row(task, [*talk, ask, answer], result)
    elif result and not missing:
        yield _to_row(task, talk, result)


def _find_sentences(question: str) -> list[str]:
    """Find what asks; some datasets have the fact itself there, or its options."""
    return find_questions(question) if question.strip().endswith(_ENDS) else []


def _ask_for(facts: Sequence[Fact], random_: random.Random) -> str:
    questions = [fact.question for fact in facts]
    if len(questions) > 1 and random_.random() < _LISTED:
        return "\n".join(f"{idx}. {text}" for idx, text in enumerate(questions, start=1))
    return " ".join(questions)


def _to_row(task: Task, prompt: Sequence[Message], reply: str) -> Row:
    return {
        **task.to_row(),
        "prompt": list(prompt),
        "completion": reply,
        "turn_id": len(prompt),
        "score": 1.0,
    }
