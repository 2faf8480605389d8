"""Check conversations for faults of the simulated user, without a language model."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from collabllm.messages import Message
from collabllm.tasks.matching import find_questions

_LEAK_WORDS = 12
_ROLE_FLIP = re.compile(
    r"\b(how (can|may) i (help|assist)|i'?d be happy to (help|assist)|as an ai\b|i'?m an ai\b|"
    r"let me know if you (need|have)|feel free to ask|is there anything else i can)",
    re.IGNORECASE,
)
_JSON_REST = re.compile(r'"(thought|current_answer|response)"\s*:|```json|^\s*\{\s*"')


def audit_conversation(messages: Sequence[Message], goal: str) -> dict[str, bool]:
    """Look for four faults in the user's messages.

    Args:
        messages: The conversation.
        goal: The hidden goal.

    Returns:
        `role_flip` (the user speaks like an assistant), `goal_leak` (12 or more words of the goal
        verbatim in a message that answers no question), `repeat` (a message of more than three
        words said twice), `json_leftover` (pieces of the user's private JSON).
    """
    users = [message["content"] for message in messages if message["role"] == "user"]
    said = Counter(" ".join(text.lower().split()) for text in users)
    return {
        "role_flip": any(_ROLE_FLIP.search(text) for text in users),
        "goal_leak": _leaks_goal(messages, goal),
        "repeat": any(n > 1 and len(text.split()) > 3 for text, n in said.items()),
        "json_leftover": any(_JSON_REST.search(text) for text in users),
    }


def audit_rates(audits: Iterable[Mapping[str, bool]]) -> dict[str, float]:
    """Return the share of conversations with each fault."""
    found = list(audits)
    return {name: sum(a[name] for a in found) / len(found) for name in found[0]} if found else {}


def _leaks_goal(messages: Sequence[Message], goal: str) -> bool:
    words = goal.lower().split()
    runs = {" ".join(words[i : i + _LEAK_WORDS]) for i in range(len(words) - _LEAK_WORDS + 1)}
    previous = ""
    for message in messages:
        if message["role"] == "user" and not find_questions(previous):
            text = " ".join(message["content"].lower().split())
            if any(run in text for run in runs):
                return True
        previous = message["content"] if message["role"] == "assistant" else previous
    return False
