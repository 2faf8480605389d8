"""Which facts a text tells, and which a question asks for."""

import re
from collections.abc import Sequence

from collabllm.messages import Message
from collabllm.tasks.task import Fact

_QUESTION_WORDS = frozenset("how long many often what when where which who".split())


def facts_told(facts: Sequence[Fact], messages: Sequence[Message]) -> set[str]:
    """Return the names of the facts that the user has told in a conversation."""
    said = " ".join(message["content"] for message in messages if message["role"] == "user")
    return {
        fact.name
        for fact in facts
        if fact.answer in said or (fact.value and contains_value(said, fact.value))
    }


def facts_asked_for(facts: Sequence[Fact], questions: Sequence[str], known: set[str]) -> list[Fact]:
    """Return the facts that questions ask for, each at most once; those in `known` never."""
    asked: list[Fact] = []
    for question in questions:
        words = {_singular(word) for word in re.findall(r"[a-z']+", question.lower())}
        scores = {
            fact.name: _cue_score(fact, question.lower(), words)
            for fact in facts
            if fact.name not in known and fact not in asked
        }
        best = max(scores, key=lambda name: scores[name], default=None)
        if best is not None and scores[best] > 0:
            asked.append(next(fact for fact in facts if fact.name == best))
    return asked


def find_questions(text: str) -> list[str]:
    """Return the sentences that end with a question mark."""
    return [
        sentence.strip() for sentence in re.findall(r"[^.!?\n]*\?", text) if sentence.strip(" ?")
    ]


def _cue_score(fact: Fact, question: str, words: set[str]) -> float:
    """Count a fact's cues in a question; several words count for more than one."""
    score = 0.0
    for cue in fact.cues or tuple(fact.name.lower().replace("_", " ").split()):
        if " " in cue:
            score += 2 * (cue in question)
        else:
            score += (_singular(cue) in words) * (0.5 if cue in _QUESTION_WORDS else 1.5)
    return score


def _singular(word: str) -> str:
    """Take a plural's s off, so that a guest count asks for guests."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


def contains_value(text: str, value: str) -> bool:
    """Tell whether a value stands in a text, whatever the case."""
    return value.lower() in text.lower()
