"""A study's answers as an evaluation: paired by person, with the same results and report."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from collabllm.evaluation.analysis import SCORES_FILE, analyse_folder, read_scores
from collabllm.evaluation.measures import FIRST_REPLY_ASKS, MINUTES_ON_TASK
from collabllm.evaluation.names import transcript_file
from collabllm.evaluation.people import PEOPLE
from collabllm.evaluation.plan import DEALT, Plan, Variant, read_plan
from collabllm.evaluation.report.conversations import plural
from collabllm.evaluation.report.summary import write_reports
from collabllm.evaluation.results import (
    PEOPLE_UNIT,
    ArmInfo,
    Outcome,
    Results,
    UserInfo,
    write_results,
)
from collabllm.evaluation.study.agreement import compare_with_people, mean_by_place
from collabllm.evaluation.study.crossed import Rating, crossed_difference
from collabllm.evaluation.study.person import Person, Rules, rebuild
from collabllm.evaluation.study.store import Study, read_answers, read_study
from collabllm.files import write_text
from collabllm.provenance import library_versions
from collabllm.tasks.requests import find_questions

REPORT_FOLDER = "report"
GRADES = ("result", "interaction")
PREFERRED = "preferred"
_MOST_SHOWN = 4  # agreements in the notes


@dataclass(frozen=True)
class Finished:
    """One task that a person has done and graded, with the hidden arm."""

    person: int
    task_idx: int
    task_id: str
    arm: str
    values: dict[str, float]
    messages: list[Any]
    why: str


def analyse_study(folder: Path, agree_with: Path | None = None) -> Results:
    """Compute a study's results, and write them and the report into its folder `report`.

    Args:
        folder: Folder of the study, running or over.
        agree_with: Folder of an evaluation of the same arms on the same tasks with simulated users:
            its metrics are compared with people's grades.

    Raises:
        FileNotFoundError: If a folder has no study, or no evaluation.
        ValueError: If nobody has graded anything yet.
    """
    study = read_study(folder)
    rules = Rules(study.min_turns, study.rate_every)
    people = [rebuild(n, rules, events) for n, events in sorted(read_answers(folder).items())]
    begun = [person for person in people if person.assignment]
    finished = [task for person in begun for task in finished_tasks(person)]
    if not finished:
        raise ValueError(f"{folder}: nobody has graded a task yet.")
    notes = [*_notes(study, people, begun, finished), *_crossed_notes(study, finished)]
    if agree_with is not None:
        notes += _agreement_notes(finished, agree_with, folder / REPORT_FOLDER)
    target = folder / REPORT_FOLDER
    _write_evaluation(target, study, begun, finished)
    results = analyse_folder(target)
    results = replace(results, notes=[*results.notes, *notes])
    write_results(target, results)
    write_reports(target, results)
    return results


def finished_tasks(person: Person) -> Iterator[Finished]:
    """Yield what a person has graded, with times and, after a preference, that of the arm."""
    choice = next((e["choice"] for e in person.events if e["kind"] == "preference"), None)
    for idx, talk in enumerate(person.talks):
        own = [event for event in person.events if event.get("task_idx") == idx]
        grade = next((event for event in own if event["kind"] == "rate_task"), None)
        if grade is None:
            return
        given = person.assignment[idx]
        replies = [event for event in own if event["kind"] == "reply"]
        first = replies[0]["text"] if replies else ""
        values = {
            **{name: float(grade[name]) for name in GRADES},
            FIRST_REPLY_ASKS: float(bool(find_questions(first))),
            "num_turns": float(sum(m["role"] == "user" for m in talk)),
            "num_tokens": float(sum(event["tokens"] for event in replies)),
            "seconds": round(sum(event["waited_s"] for event in replies), 3),
            MINUTES_ON_TASK: round(_seconds_on_task(person, idx) / 60, 3),
        }
        if choice is not None:
            values[PREFERRED] = _preferred(person, choice, given.arm)
        yield Finished(person.number, idx, given.task_id, given.arm, values, talk, grade["why"])


def _preferred(person: Person, choice: int, arm: str) -> float:
    """Return 1 for the arm of the chosen conversation and 0 for others, or all arms' equal share.

    Args:
        person: Who chose.
        choice: The number of a task from 1 on; 0 says that there is no difference.
        arm: Of which to say it, on all of its tasks.
    """
    if choice:
        return float(person.assignment[choice - 1].arm == arm)
    return 1 / len({given.arm for given in person.assignment})


def _seconds_on_task(person: Person, task_idx: int) -> float:
    """Add up the time between events of a task; a break of over ten minutes is none."""
    start = [e for e in person.events if e["kind"] in ("consent", "rate_task")]
    times = [e["at"] for e in start[task_idx : task_idx + 1]]
    times += [e["at"] for e in person.events if e.get("task_idx") == task_idx]
    gaps = [b - a for a, b in pairwise(sorted(times))]
    return float(sum(gap for gap in gaps if gap < 600))


def _write_evaluation(
    folder: Path, study: Study, people: Sequence[Person], finished: Sequence[Finished]
) -> None:
    """Write plan, scores and transcripts as an evaluation has them; a person is a unit."""
    (folder / "transcripts").mkdir(parents=True, exist_ok=True)
    _plan(study, people).write(folder)
    by_place: dict[tuple[str, int], list[Finished]] = defaultdict(list)
    for task in finished:
        by_place[task.arm, task.person].append(task)
    scores: list[dict[str, Any]] = []
    transcripts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (arm, person), tasks in by_place.items():
        values = {
            name: sum(task.values[name] for task in tasks) / len(tasks) for name in tasks[0].values
        }
        scores.append(_score(arm, person, values))
        transcripts[arm] += [_transcript(task, rollout) for rollout, task in enumerate(tasks)]
    write_text(folder / SCORES_FILE, "".join(map(_line, scores)))
    for arm in study.arms:
        write_text(transcript_file(folder, arm, PEOPLE), "".join(map(_line, transcripts[arm])))


def _plan(study: Study, people: Sequence[Person]) -> Plan:
    arms = study.settings.get("arms", {})
    return Plan(
        arms=[
            ArmInfo(**arms[name]) if name in arms else ArmInfo(name, [], [], "default", "")
            for name in study.arms
        ],
        users=[UserInfo(PEOPLE, PEOPLE, f"{len(people)} participants of a study")],
        reference=study.arms[0],
        metrics=[*GRADES, PREFERRED, MINUTES_ON_TASK],
        primary=[Outcome(grade, "unasked") for grade in GRADES],
        variants=[
            Variant(name, name, name, "unasked", 0, 0)
            for name in (f"person {person.number}" for person in people)
        ],
        num_rollouts=1,
        cluster_by=PEOPLE_UNIT,
        tasks=study.settings.get("tasks", ""),
        tasks_are="development",
        test_set_uses=[],
        seed=study.seed,
        date=datetime.now(UTC).date().isoformat(),
        command="scripts/study.py, then scripts/evaluate.py --study",
        versions=library_versions(),
        commit="",
        prompt_hashes={},
        signatures={},
        settings={
            **{
                name: value
                for name, value in asdict(study).items()
                if name not in ("tasks", "settings", "arms")
            },
            DEALT: {
                arm: [
                    idx
                    for idx, person in enumerate(people)
                    if arm in {given.arm for given in person.assignment}
                ]
                for arm in study.arms
            },
        },
        notes=[],
    )


def _score(arm: str, person: int, values: dict[str, float]) -> dict[str, Any]:
    return {
        "arm": arm,
        "user": PEOPLE,
        "num_told": None,
        "task_id": f"person {person}",
        "rollout_idx": 0,
        "termination_reason": "user_satisfied",
        "failed": False,
        "audit": {},
        "replies": [],
        "values": {name: round(value, 6) for name, value in values.items()},
        "missing": {},
    }


def _transcript(task: Finished, rollout: int) -> dict[str, Any]:
    grades = ", ".join(f"{name} {task.values[name]:g}" for name in GRADES)
    return {
        "task_id": f"person {task.person}",
        "rollout_idx": rollout,
        "single_turn_prompt": f"task {task.task_id}",
        "messages": task.messages,
        "user_turns": [{"response": f"{grades}: {task.why}", "is_terminal": True}],
        "termination_reason": "user_satisfied",
        "error": "",
        "failed": False,
        "audit": {},
        "assistant": task.arm,
        "user": PEOPLE,
    }


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _notes(
    study: Study, people: Sequence[Person], begun: Sequence[Person], finished: Sequence[Finished]
) -> Iterator[str]:
    done = sum(person.phase == "done" for person in begun)
    refused = sum(person.phase == "refused" for person in people)
    yield (
        f"Of {study.participants} links {len(begun)} people took part and {refused} did not agree; "
        f"{done} finished, with {len(finished)} graded tasks."
    )
    full = sum(event["kind"] == "full" for person in begun for event in person.events)
    if full:
        yield f"{plural(full, 'conversation')} filled a model's context, and ended without a reply."
    choices = [e for p in begun for e in p.events if e["kind"] == "preference"]
    if choices:
        none = sum(not e["choice"] for e in choices)
        yield f"{len(choices)} people were asked for a preference; {none} saw no difference."


def _crossed_notes(study: Study, finished: Sequence[Finished]) -> Iterator[str]:
    """Say what remains of the differences when tasks are a sample, too."""
    reference = study.arms[0]
    for arm in study.arms[1:]:
        for grade in GRADES:
            found = crossed_difference(
                [
                    Rating(str(t.person), t.task_id, t.arm == arm, t.values[grade])
                    for t in finished
                    if t.arm in (arm, reference)
                ]
            )
            if found is None:
                told = f"{arm} against {reference} in {grade}"
                yield f"{told}: the arms cannot be told apart from people and tasks."
                continue
            over = f"{found.num_people} people and {found.num_tasks} tasks"
            told = f"{arm} against {reference} in {grade}, with {over} as crossed samples: "
            if found.low is None or found.high is None:
                yield f"{told}{found.mean:+.2f}; too few for an interval that holds for others."
            else:
                yield f"{told}{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]."


def _agreement_notes(finished: Sequence[Finished], evaluation: Path, target: Path) -> Iterator[str]:
    """Compare people with simulated users, and keep all of it as agreement.json."""
    grades = {
        grade: mean_by_place((t.task_id, t.arm, t.values[grade]) for t in finished)
        for grade in GRADES
    }
    tasks_of = {v.task_id: v.task for v in read_plan(evaluation).variants}
    found = compare_with_people(read_scores(evaluation), tasks_of, grades)
    text = json.dumps([asdict(one) for one in found], indent=1)
    write_text(target / "agreement.json", text + "\n")
    if len(found) > _MOST_SHOWN:
        yield (
            f"Of {len(found)} agreements of people with users, metrics and openings, the best "
            f"{_MOST_SHOWN} by lower bound follow, some perhaps by chance; agreement.json has all."
        )
    best = sorted(found, key=lambda one: -one.low)
    yield from (str(one) for one in best[:_MOST_SHOWN])
