"""Measure the simulated user of a conversation, without a language model."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from collabllm.messages import Message
from collabllm.simulation.user_models.base import PREMATURE_END, TOLD_WRONGLY, UserTurnResult
from collabllm.tasks import Fact
from collabllm.tasks.matching import facts_asked_for, facts_told, find_questions
from collabllm.tasks.words import contains_value, content_words

_LEAK_WORDS = 12
_ROLE_FLIP = re.compile(
    r"\b(how (can|may) i (help|assist)|i'?d be happy to (help|assist)|as an ai\b|i'?m an ai\b|"
    r"let me know if you (need|have)|feel free to ask|is there anything else i can|would you like "
    r"(me )?to (play|do|try|talk|chat|know|continue|hear|see)|"
    r"(anything|something) else you'?d like)",
    re.IGNORECASE,
)
_JSON_REST = re.compile(r'"(thought|current_answer|slip|slipped|response)"\s*:|```json|^\s*\{\s*"')
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def audit_conversation(
    messages: Sequence[Message],
    goal: str,
    *,
    facts: Sequence[Fact] = (),
    user_turns: Sequence[UserTurnResult] = (),
    opening: str = "",
) -> dict[str, bool]:
    """Look for faults in the user's messages.

    Args:
        messages: The conversation.
        goal: The hidden goal.
        facts: Facts of the task.
        user_turns: The simulator's user turns, with the user's slips.
        opening: The first message that the task itself gives; it may tell what it likes.

    Returns:
        `role_flip` (the user speaks like an assistant), `goal_leak` (12 or more words of the goal
        verbatim in a message that answers no question), `repeat` (a message of more than three
        words said twice), `json_leftover` (pieces of the user's private JSON), `told_wrongly` (it
        says so itself, or gives another number or option than the fact that was asked for has),
        `premature_end` (it wanted to end before there was a result).
    """
    users = [message["content"] for message in messages if message["role"] == "user"]
    slips = {slip for turn in user_turns for slip in turn.slips}
    said = Counter(" ".join(text.lower().split()) for text in users)
    return {
        "role_flip": any(_ROLE_FLIP.search(text.replace("\u2019", "'")) for text in users),
        "goal_leak": _leaks_goal(messages, goal, opening),
        "repeat": any(n > 1 and len(text.split()) > 3 for text, n in said.items()),
        "json_leftover": any(map(_JSON_REST.search, users)),
        "told_wrongly": TOLD_WRONGLY in slips or _tells_wrongly(messages, facts),
        "premature_end": PREMATURE_END in slips,
    }


def measure_user(
    messages: Sequence[Message], goal: str, facts: Sequence[Fact] = ()
) -> dict[str, float]:
    """Measure how a user talks, by which it can be compared with people.

    Args:
        messages: The conversation.
        goal: The hidden goal.
        facts: Facts of the task.

    Returns:
        `message_words` (mean), `goal_told_at_once` (share of the goal's words in the first
        message), and for tasks with facts `facts_told_at_once` and `facts_told_unasked` (shares of
        the facts). Nothing where the user said nothing.
    """
    users = [message for message in messages if message["role"] == "user"]
    if not users:
        return {}
    wanted, first = content_words(goal), users[0]["content"]
    measures = {
        "message_words": sum(len(m["content"].split()) for m in users) / len(users),
        "goal_told_at_once": len(wanted & content_words(first)) / len(wanted) if wanted else 0.0,
    }
    if facts:
        measures["facts_told_at_once"] = len(facts_told(facts, users[:1])) / len(facts)
        unasked = sum(len(new - asked.keys()) for _, asked, new in _iter_answers(messages, facts))
        measures["facts_told_unasked"] = unasked / len(facts)
    return measures


def _iter_answers(
    messages: Sequence[Message], facts: Sequence[Fact]
) -> Iterator[tuple[str, dict[str, Fact], set[str]]]:
    """Yield each message after the user's first one, the facts asked for, and those newly told."""
    reply, has_begun = "", False
    for idx, message in enumerate(messages):
        if message["role"] == "assistant":
            reply = message["content"]
        elif message["role"] == "user":
            if has_begun:
                before = facts_told(facts, messages[:idx])
                asked = facts_asked_for(facts, find_questions(reply), before)
                new = facts_told(facts, messages[: idx + 1]) - before
                yield message["content"], {fact.name: fact for fact in asked}, new
            has_begun = True


def _tells_wrongly(messages: Sequence[Message], facts: Sequence[Fact]) -> bool:
    values = [fact.value for fact in facts if fact.value]
    return any(
        _contradicts(text, fact, values)
        for text, asked, _ in _iter_answers(messages, facts)
        for fact in asked.values()
    )


def _contradicts(text: str, fact: Fact, values: Sequence[str]) -> bool:
    """Tell whether an answer has another number or option than the fact that was asked for."""
    if not fact.value or contains_value(text, fact.value):
        return False
    known = set(_NUMBER.findall(" ".join(values)))
    if _NUMBER.search(fact.value) and set(_NUMBER.findall(text)) - known:
        return True
    options = [] if fact.question.rstrip().endswith("?") else fact.question.split(", ")
    return len(options) > 1 and any(contains_value(text, option) for option in options)


class AuditRates:
    """Means of the audits and measures of many conversations, added one at a time."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._numbers: Counter[str] = Counter()

    def add(self, audit: Mapping[str, float], measures: Mapping[str, float] | None = None) -> None:
        """Add one conversation; a measure that it lacks is not counted."""
        for name, value in {**audit, **(measures or {})}.items():
            self._sums[name] += value
            self._numbers[name] += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each measure; of a fault, it is the share of conversations."""
        return {name: total / self._numbers[name] for name, total in self._sums.items()}

    def __str__(self) -> str:
        means = self.means()
        if not means:
            return "Simulator audit: no conversations."
        parts = [
            f"{name} {mean:.1f}" if name == "message_words" else f"{name} {mean:.0%}"
            for name, mean in means.items()
        ]
        return f"Simulator audit, means over conversations: {', '.join(parts)}."


def _leaks_goal(messages: Sequence[Message], goal: str, opening: str) -> bool:
    words = goal.lower().split()
    runs = {" ".join(words[i : i + _LEAK_WORDS]) for i in range(len(words) - _LEAK_WORDS + 1)}
    previous = ""
    for message in messages:
        is_unasked = message["role"] == "user" and not find_questions(previous)
        if is_unasked and message["content"] != opening:
            text = " ".join(message["content"].lower().split())
            if any(run in text for run in runs):
                return True
        previous = message["content"] if message["role"] == "assistant" else previous
    return False
