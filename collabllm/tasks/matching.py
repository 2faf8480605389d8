"""Which facts a text tells, and which a question asks for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from collabllm.messages import Message
from collabllm.tasks.embeddings import (
    BUNDLED_ENCODER,
    has_bundled_encoder,
    warn_without_encoder,
)
from collabllm.tasks.meaning import match_by_meaning
from collabllm.tasks.requests import find_questions, split_sentences
from collabllm.tasks.task import Fact
from collabllm.tasks.words import (
    PERSON_WORDS,
    contains_value,
    content_words,
    cut_value,
    find_numbers,
    is_unspaced,
    singular,
)

__all__ = [
    "Asking",
    "contains_value",
    "facts_asked_for",
    "facts_told",
    "find_asking",
    "find_questions",
]

MATCHERS = ("auto", "cues", "semantic")

_SHARE_OF_WORDS = 0.8  # of an answer without a value, in one later message
_MIN_WORDS = 2
_MIN_SENTENCE = 3  # words; "Yes." is no part of "Yes, on Friday."
_NOT_SO = re.compile(
    r"\b(not|never|no idea|dont know|unsure|(more|less|fewer) than)\b|n['\u2019]t\b", re.IGNORECASE
)

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_QUESTION_WORDS = frozenset("how long many often what when where which who".split())


@dataclass(frozen=True)
class Asking:
    """What one reply asks for: its questions, and the facts still untold that they ask for."""

    questions: tuple[str, ...]
    asked: tuple[Fact, ...]

    @property
    def num_needless(self) -> int:
        """Questions beyond the facts that they bring: for nothing, for the told, or twice."""
        return max(len(self.questions) - len(self.asked), 0)


def find_asking(
    facts: Sequence[Fact], messages: Sequence[Message], matcher: str = "auto"
) -> list[Asking]:
    """Return what each reply of a conversation asks for, in order.

    The one count of asked and needless questions: users, metrics and reports take theirs from here.

    Args:
        facts: Facts of the task.
        messages: The conversation.
        matcher: As in `facts_asked_for`.
    """
    found = []
    for idx, message in enumerate(messages):
        if message["role"] == "assistant":
            questions = tuple(find_questions(message["content"]))
            known = facts_told(facts, messages[:idx]) if questions else set()
            asked = facts_asked_for(facts, questions, known, matcher)
            found.append(Asking(questions, tuple(asked)))
    return found


def facts_told(facts: Sequence[Fact], messages: Sequence[Message]) -> set[str]:
    """Return the names of the facts that the user has told in a conversation.

    A fact is told by its answer, word for word, or by its value outside other facts' answers. One
    without a value is also told by most of its answer's words, those of its name left out, and all
    of its numbers, in one message after the first: an opening tells a story's words without telling
    what is meant. Sentences that deny, doubt or compare ("I don't know how many loaves ...") tell
    none, unless the answer does so, too.
    """
    users = [message["content"] for message in messages if message["role"] == "user"]
    rests, told = users, set[str]()
    for answer in sorted({_bare_answer(fact) for fact in facts}, key=lambda a: (-len(a), a)):
        if any(contains_value(rest, answer) for rest in rests):
            told.add(answer)
            rests = [cut_value(rest, answer) for rest in rests]
    later = [rest for text, rest in zip(users[1:], rests[1:], strict=True) if users[0] not in text]
    return {
        fact.name
        for fact in facts
        if _bare_answer(fact) in told
        or (fact.value and any(contains_value(rest, fact.value) for rest in rests))
        or (not fact.value and any(_tells_most(rest, fact) for rest in later))
    }


def _bare_answer(fact: Fact) -> str:
    """Return the answer without its full stop, which a word alone needs where no value tells it."""
    if not fact.value and len(fact.answer.split()) < _MIN_SENTENCE:
        return fact.answer
    return fact.answer.rstrip(" .!?") or fact.answer


def _tells_most(text: str, fact: Fact) -> bool:
    words = content_words(fact.answer) - content_words(fact.name) - PERSON_WORDS
    if not _NOT_SO.search(fact.answer):
        text = " ".join(part for part in split_sentences(text) if not _NOT_SO.search(part))
    if len(words) < _MIN_WORDS or not find_numbers(fact.answer) <= find_numbers(text):
        return False
    return len(words & content_words(text)) >= _SHARE_OF_WORDS * len(words)


def facts_asked_for(
    facts: Sequence[Fact], questions: Sequence[str], known: set[str], matcher: str = "auto"
) -> list[Fact]:
    """Return the facts that questions ask for, each at most once; those in `known` never.

    Args:
        facts: Facts of the task.
        questions: From `find_questions`.
        known: Names of facts that the user has told.
        matcher: `cues` (hand-written cue words), `semantic` (the bundled sentence encoder) or
            `semantic:MODEL` (an encoder of the Hub), or `auto`: semantic where no fact has cues
            and the encoder is installed.

    Raises:
        ValueError: If there is no such matcher.
    """
    if not questions or not facts:
        return []
    kind, encoder = _resolve(facts, matcher)
    if kind == "semantic":
        return match_by_meaning(facts, questions, known, encoder)
    return _match_by_cues(facts, questions, known)


def check_matcher(matcher: str) -> None:
    """Refuse a matcher that there is not.

    Raises:
        ValueError: With the names that there are.
    """
    kind, colon, encoder = matcher.partition(":")
    if kind not in MATCHERS or (colon and (kind != "semantic" or not encoder)):
        raise ValueError(
            f"matcher must be {', '.join(MATCHERS)} or semantic:MODEL, got {matcher!r}."
        )


def uses_encoder(facts: Sequence[Fact], matcher: str = "auto") -> bool:
    """Tell whether a matcher loads a sentence encoder for these facts."""
    return bool(facts) and _resolve(facts, matcher)[0] == "semantic"


def _resolve(facts: Sequence[Fact], matcher: str) -> tuple[str, str]:
    """Return the kind of matcher and its encoder; `auto` depends on the facts."""
    check_matcher(matcher)
    kind, _, encoder = matcher.partition(":")
    if kind == "auto":
        if any(fact.cues for fact in facts):
            kind = "cues"
        elif has_bundled_encoder():
            kind = "semantic"
        else:
            warn_without_encoder()
            kind = "cues"
    return kind, encoder or BUNDLED_ENCODER


def _match_by_cues(facts: Sequence[Fact], questions: Sequence[str], known: set[str]) -> list[Fact]:
    asked: list[Fact] = []
    for question in questions:
        words = {singular(word) for word in _WORD.findall(question.lower())}
        scores = {
            fact.name: _cue_score(fact, question.lower(), words)
            for fact in facts
            if fact.name not in known and fact not in asked
        }
        best = max(scores, key=lambda name: scores[name], default=None)
        if best is not None and scores[best] > 0:
            asked.append(next(fact for fact in facts if fact.name == best))
    return asked


def _cue_score(fact: Fact, question: str, words: set[str]) -> float:
    """Count a fact's cues in a question; several words count for more than one."""
    score = 0.0
    for cue in fact.cues or _cues_of_name(fact.name):
        if " " in cue:
            score += 2 * (cue in question)
        elif is_unspaced(cue):
            score += 1.5 * (cue in question)
        else:
            score += (singular(cue) in words) * (0.5 if cue in _QUESTION_WORDS else 1.5)
    return score


@lru_cache(maxsize=10_000)
def _cues_of_name(name: str) -> tuple[str, ...]:
    """Return the words of a name by which a question can ask for it, without "of the"."""
    words = name.lower().replace("_", " ")
    return tuple(sorted(content_words(words))) or tuple(words.split())
