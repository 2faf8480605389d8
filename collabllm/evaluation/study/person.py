"""What one person has done so far, from the events in their order, and what may come next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from collabllm.evaluation.study.design import Assignment
from collabllm.evaluation.study.settings import MAX_TURNS
from collabllm.messages import Message, to_valid_text
from collabllm.web import UserError

Event = Mapping[str, Any]
Phase = Literal["consent", "refused", "chat", "rate_turn", "rate_task", "preference", "done"]
MAX_LETTERS = 8000
SCALE = range(1, 6)


@dataclass(frozen=True)
class Rules:
    """Rules of a study: the fewest turns of a task, and after how many to ask in between."""

    min_turns: int
    rate_every: int


@dataclass
class Person:
    """One participant; `step` counts the events, so that an action of an old page is told."""

    number: int
    rules: Rules
    events: list[Event] = field(default_factory=list)
    phase: Phase = "consent"
    assignment: list[Assignment] = field(default_factory=list)
    talks: list[list[Message]] = field(default_factory=list)
    is_full: bool = False
    """Whether the model's context has no room for a reply in the current task."""

    @property
    def step(self) -> int:
        """How much has happened."""
        return len(self.events)

    @property
    def talk(self) -> list[Message]:
        """The conversation of the current task."""
        return self.talks[-1] if self.talks else []

    @property
    def num_turns(self) -> int:
        """User messages of the current task."""
        return sum(message["role"] == "user" for message in self.talk)

    @property
    def waits(self) -> bool:
        """Whether a reply is due."""
        asked = bool(self.talk) and self.talk[-1]["role"] == "user"
        return self.phase == "chat" and asked and not self.is_full

    @property
    def may_write(self) -> bool:
        """Whether the current task takes another message."""
        left = self.num_turns < MAX_TURNS and not self.is_full
        return self.phase == "chat" and not self.waits and left

    @property
    def current(self) -> Assignment:
        """The current task and its arm."""
        return self.assignment[len(self.talks) - 1]

    @property
    def may_finish(self) -> bool:
        """Whether the current task may end."""
        enough = self.num_turns >= self.rules.min_turns or self.is_full
        return self.phase == "chat" and not self.waits and enough

    def apply(self, event: Event) -> None:
        """Take note of an event."""
        self.events.append(event)
        kind = event["kind"]
        if kind == "consent":
            self.phase = "chat" if event["agree"] else "refused"
            if event["agree"]:
                self.assignment = [Assignment(**one) for one in event["assignment"]]
                self.talks.append([])
        elif kind == "message":
            self.talk.append({"role": "user", "content": event["text"]})
        elif kind == "reply":
            self.talk.append({"role": "assistant", "content": event["text"]})
            if self.rules.rate_every and self.num_turns % self.rules.rate_every == 0:
                self.phase = "rate_turn"
        elif kind == "full":
            self.is_full = True
        elif kind == "rate_turn":
            self.phase = "chat"
        elif kind == "finish":
            self.phase = "rate_task"
        elif kind == "rate_task":
            self._next_task()
        elif kind == "preference":
            self.phase = "done"

    def _next_task(self) -> None:
        self.is_full = False
        if len(self.talks) < len(self.assignment):
            self.talks.append([])
            self.phase = "chat"
        else:
            several = len({one.arm for one in self.assignment}) > 1
            self.phase = "preference" if several else "done"

    def check(self, action: Mapping[str, Any]) -> dict[str, Any]:
        """Return the event of an action, without what the server adds.

        Raises:
            UserError: If it does not belong here, or its content does not fit.
        """
        kind = action.get("kind")
        checks = {
            "consent": ("consent", _consent),
            "message": ("chat", _message),
            "finish": ("chat", _nothing),
            "rate_turn": ("rate_turn", _rate_turn),
            "rate_task": ("rate_task", _rate_task),
            "preference": ("preference", _preference),
        }
        if kind not in checks or checks[kind][0] != self.phase:
            raise UserError("This page is behind; it shows the present state now.", 409)
        if kind == "message" and not self.may_write:
            raise UserError("Wait for the reply, or finish: this conversation is long enough.", 409)
        if kind == "finish" and not self.may_finish:
            raise UserError(f"A task takes at least {self.rules.min_turns} messages of yours.")
        return {"kind": kind, **checks[kind][1](action, len(self.assignment))}

    def mark(self) -> dict[str, Any]:
        """Return what an event says of where it belongs; the arm stays in the files."""
        if not self.talks:
            return {}
        return {"task_idx": len(self.talks) - 1, "task_id": self.current.task_id}


def _nothing(action: Event, number: int) -> dict[str, Any]:
    return {}


def _consent(action: Event, number: int) -> dict[str, Any]:
    if not isinstance(action.get("agree"), bool):
        raise UserError("Agree, or do not.")
    return {"agree": action["agree"]}


def _message(action: Event, number: int) -> dict[str, Any]:
    text = _text(action, "text")
    if not text.strip():
        raise UserError("Write something first.")
    return {"text": text}


def _rate_turn(action: Event, number: int) -> dict[str, Any]:
    return {"interaction": _grade(action, "interaction")}


def _rate_task(action: Event, number: int) -> dict[str, Any]:
    grades = {name: _grade(action, name) for name in ("interaction", "result")}
    return {**grades, "why": _text(action, "why")}


def _preference(action: Event, number: int) -> dict[str, Any]:
    choice = action.get("choice")
    if not _is_number(choice) or choice not in range(number + 1):
        raise UserError("Choose a conversation, or none.")
    return {"choice": choice, "why": _text(action, "why")}


def _grade(action: Event, name: str) -> int:
    grade: Any = action.get(name)
    if not _is_number(grade) or grade not in SCALE:
        raise UserError(f"Grade the {name} from {SCALE[0]} to {SCALE[-1]}.")
    return int(grade)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(action: Event, name: str) -> str:
    text = action.get(name, "")
    if not isinstance(text, str) or len(text) > MAX_LETTERS:
        raise UserError(f"A text has at most {MAX_LETTERS:,} letters.")
    return to_valid_text(text)


def rebuild(number: int, rules: Rules, events: Sequence[Event]) -> Person:
    """Bring a person back from the events of a file."""
    person = Person(number, rules)
    for event in events:
        person.apply(event)
    return person
