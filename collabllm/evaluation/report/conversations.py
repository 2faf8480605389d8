"""What the page shows of one conversation: a row of the table, and what opens below it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PREVIEW = 140


@dataclass(frozen=True)
class Conversation:
    """One conversation. `scores` and all before it stand in the table, the rest opens below.

    `opening` says what the first message told; `scores` is by metric, without those in `missing`,
    which has reasons; `faults` are the simulated user's; `farewell` is its last word, which the
    assistant did not see; `training` is one of an arm's several; `tampered` names the metrics that
    a reply attacked. Messages have `role`, `content`
    and `note`, and those of a dataset `candidates`.
    """

    task: str
    arm: str
    user: str = ""
    opening: str = ""
    rollout: int = 0
    ending: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    goal: str = ""
    error: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    messages: Sequence[Mapping[str, Any]] = ()
    farewell: str = ""
    training: str = ""
    tampered: Sequence[str] = ()

    def to_row(self, metrics: Sequence[str]) -> list[Any]:
        """Return the table's row: eight texts, then one score (or None) per metric.

        A conversation's address in the page is made of the first six.
        """
        first = next((m["content"] for m in self.messages if m["role"] == "user"), "")
        scores = [self.scores.get(metric) for metric in metrics]
        names = [self.task, self.arm, self.user, self.opening, self.rollout, self.training]
        return [*names, self.ending, first[:_PREVIEW], *scores]

    def to_body(self) -> dict[str, Any]:
        """Return what opens below the row; what is empty is left out."""
        parts = {
            "goal": self.goal,
            "error": self.error,
            "missing": dict(self.missing),
            "faults": list(self.faults),
            "tampered": list(self.tampered),
            "messages": list(self.messages),
            "farewell": self.farewell,
        }
        return {name: part for name, part in parts.items() if part}


def from_transcript(
    line: Mapping[str, Any],
    arm: str | None = None,
    score: Mapping[str, Any] | None = None,
    opening: str = "",
    training: str = "",
) -> Conversation:
    """Show one line of a transcript file.

    Args:
        line: One line of the file.
        arm: Its name in an evaluation; else the assistant's.
        score: The evaluation's line of scores for it.
        opening: What the first message told, in words.
        training: Which of the arm's several trainings.
    """
    values = score["values"] if score else {}
    audit = line.get("audit") or {}
    turns = line.get("user_turns") or []
    return Conversation(
        str(line["task_id"]),
        arm or str(line.get("assistant", "")),
        str(score["user"] if score else line.get("user", "")),
        opening,
        line.get("rollout_idx", 0),
        str(line["termination_reason"]),
        {name: round(value, 4) for name, value in values.items() if value is not None},
        line.get("single_turn_prompt") or "",
        line.get("error") or "",
        dict(score["missing"]) if score else {},
        [name for name, found in audit.items() if found],
        _with_counts(line["messages"], score["replies"] if score else []),
        next((turn["response"] for turn in turns if turn["is_terminal"]), ""),
        training,
        score.get("tampered", ()) if score else (),
    )


def _with_counts(
    messages: Iterable[Mapping[str, Any]], replies: Iterable[Mapping[str, int]]
) -> list[dict[str, Any]]:
    """Put each reply's counts beside it: an evaluation's, or its words."""
    left = iter(replies)
    shown = []
    for message in messages:
        counts = next(left, None) if message["role"] == "assistant" else None
        shown.append(show_message(message, _describe(counts) if counts else None))
    return shown


def _describe(counts: Mapping[str, int]) -> str:
    parts = [plural(counts["tokens"], "token"), plural(counts["questions"], "question")]
    if counts.get("needless"):
        parts.append(f"{counts['needless']} needless")
    if counts.get("facts_told"):
        parts.append(f"{plural(counts['facts_told'], 'fact')} told next")
    return ", ".join(parts)


def show_message(message: Mapping[str, Any], note: str | None = None) -> dict[str, Any]:
    """Copy what the page shows of a message; a reply without a note gets its words counted."""
    role, text = message["role"], message["content"]
    if note is None and role == "assistant":
        note = plural(len(text.split()), "word")
    shown = {"role": role, "content": text}
    return {**shown, "note": note} if note else shown


def plural(number: int, noun: str) -> str:
    """Write a number of things, such as `1 task` and `2 tasks`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
