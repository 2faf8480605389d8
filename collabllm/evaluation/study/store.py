"""A study's folder: what it is, its secret links, and every answer, appended as it comes."""

import json
import secrets
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from collabllm.files import JsonLinesWriter, read_json_lines, write_text

STUDY_FILE, LINKS_FILE, ANSWERS_FILE = "study.json", "links.json", "answers.jsonl"


@dataclass(frozen=True)
class StudyTask:
    """A task as people read it, and what simulated users know it by."""

    task_id: str
    text: str


@dataclass(frozen=True)
class Study:
    """What a study is; fixed when it begins."""

    arms: list[str]
    tasks: list[StudyTask]
    participants: int
    tasks_each: int
    min_turns: int
    rate_every: int
    pad_s: float
    seed: int
    contact: str
    settings: dict[str, Any] = field(default_factory=dict)


def open_study(folder: Path, study: Study) -> dict[str, int]:
    """Begin a study, or go on with it; return the links' codes and whose they are.

    Raises:
        ValueError: If the folder has another study; the text says in what it differs.
    """
    file = folder / STUDY_FILE
    if file.is_file():
        before, now = asdict(read_study(folder)), asdict(study)
        settings = before.pop("settings"), now.pop("settings")
        differ = [*_find_differing(before, now), *_find_differing(*settings)]
        if differ:
            raise ValueError(
                f"{folder} has another study: {', '.join(differ)} differ. Use the former settings, "
                "or another --output_dir."
            )
    else:
        codes = {secrets.token_urlsafe(16): number for number in range(1, study.participants + 1)}
        write_text(folder / LINKS_FILE, json.dumps(codes, indent=1) + "\n")
        (folder / LINKS_FILE).chmod(0o600)
        write_text(file, json.dumps(asdict(study), indent=1, ensure_ascii=False) + "\n")
    found: dict[str, int] = json.loads((folder / LINKS_FILE).read_text(encoding="utf-8"))
    return found


def _find_differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what differs; what a former version did not keep is not compared."""
    return [name for name in now if name in before and before[name] != now[name]]


def read_study(folder: Path) -> Study:
    """Read what a study is.

    Raises:
        FileNotFoundError: If the folder has none.
    """
    file = folder / STUDY_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no study: there is no {STUDY_FILE}.")
    found = json.loads(file.read_text(encoding="utf-8"))
    return Study(**{**found, "tasks": [StudyTask(**task) for task in found["tasks"]]})


def read_answers(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the events of each person, in their order."""
    file = folder / ANSWERS_FILE
    events: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in read_json_lines(file) if file.is_file() else ():
        events[event["person"]].append(event)
    return dict(events)


def open_answers(folder: Path) -> JsonLinesWriter:
    """Open the file of answers to append; one process at a time."""
    return JsonLinesWriter(folder / ANSWERS_FILE, resume=True)


def export(folder: Path, target: Path) -> int:
    """Write all answers without what could tell who gave them.

    Links, clock times and texts of errors stay behind: people have new numbers in random order, and
    times are seconds since their own beginning. Texts are as people wrote them.

    Returns:
        The number of people.

    Raises:
        FileExistsError: If the target exists.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists; choose another --export.")
    answers = list(read_answers(folder).values())
    secrets.SystemRandom().shuffle(answers)
    lines = []
    for number, events in enumerate(answers, start=1):
        for event in events:
            seconds = round(event["at"] - events[0]["at"], 1)
            told = {name: value for name, value in event.items() if name != "error"}
            lines.append({**told, "person": number, "at": seconds})
    write_text(target, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return len(answers)
