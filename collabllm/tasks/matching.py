"""Which facts a text tells, and which a question asks for."""

import re
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from collabllm.data.task_bank import SENTENCE_ENDS
from collabllm.messages import Message
from collabllm.tasks.embeddings import (
    BUNDLED_ENCODER,
    has_bundled_encoder,
    warn_without_encoder,
)
from collabllm.tasks.meaning import match_by_meaning
from collabllm.tasks.requests import (
    count_questions,
    find_questions,
    has_question_mark,
    split_sentences,
)
from collabllm.tasks.task import Fact
from collabllm.tasks.words import (
    DENIAL,
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
_DOUBT = re.compile(
    r"(?:n['\u2019]t|\b(?:dont|cannot|not)) (?:know|say|tell|remember|sure)\b|"
    r"\b(?:no idea|unsure)\b",
    re.IGNORECASE,
)
_COMPARISON = re.compile(r"\b(?:more|less|fewer) than\b", re.IGNORECASE)
_SENSES = (DENIAL, _DOUBT, _COMPARISON)
_CLAUSE = re.compile(
    r";|\b(?:but|however|although|though|except)\b|(?:,|\band\b)(?=\s(?:no|not|never|denies|without)\b)",
    re.IGNORECASE,
)
"""Where a clause ends that a denial reaches through."""
_SAYS_NO = re.compile(r"^no,\s", re.IGNORECASE)  # to what was asked; what follows is no denial

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_QUESTION_WORDS = frozenset("how long many often what when where which who".split())


@dataclass(frozen=True)
class Asking:
    """What one reply asks for: its questions, and the facts still untold that they ask for."""

    questions: tuple[str, ...]
    asked: tuple[Fact, ...]

    @property
    def num_questions(self) -> int:
        """Questions; a sentence that asks for many things is several of them."""
        return sum(map(count_questions, self.questions))

    @property
    def num_needless(self) -> int:
        """Questions beyond the facts that they bring: for nothing, for the told, or twice."""
        return max(self.num_questions - len(self.asked), 0)


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
            known = facts_told(facts, messages[:idx], matcher) if questions else set()
            asked = facts_asked_for(facts, questions, known, matcher)
            found.append(Asking(questions, tuple(asked)))
    return found


def facts_told(
    facts: Sequence[Fact], messages: Sequence[Message], matcher: str = "auto"
) -> set[str]:
    """Return the names of the facts that the user has told in a conversation.

    A fact is told by its answer, word for word, or by its value outside other facts' answers and
    longer values. One without a value is also told by most of its answer's words, those of its name
    left out, and all of its numbers, in one message after the first: an opening tells a story's
    words without telling what is meant. What stands in a question, or in a clause that denies,
    doubts or compares ("I don't know how many loaves ...") where the answer does not, tells none.
    Of facts with one answer, those are told that the message before asked for.

    Args:
        facts: Facts of the task.
        messages: The conversation.
        matcher: As in `facts_asked_for`; counts for facts with one answer.
    """
    users = [message["content"] for message in messages if message["role"] == "user"]
    told, rests = _cut_longest_first({_bare_answer(fact) for fact in facts}, users)
    values, _ = _cut_longest_first({fact.value for fact in facts if fact.value}, rests)
    later = [_cut_opening(*texts, users[0]) for texts in zip(users[1:], rests[1:], strict=True)]
    answers = Counter(map(_bare_answer, facts))
    twins = {answer for answer in told if answers[answer] > 1}
    asked = _twins_asked_for(facts, messages, twins, matcher) if twins else set()
    return {
        fact.name
        for fact in facts
        if _bare_answer(fact) in told - twins
        or fact.name in asked
        or fact.value in values
        or (not fact.value and any(_tells_most(rest, fact) for rest in later))
    }


def _cut_longest_first(wanted: set[str], texts: Sequence[str]) -> tuple[set[str], Sequence[str]]:
    """Return which of the wanted stand in texts, longer ones first, and the texts without them."""
    found = set[str]()
    for part in sorted(wanted, key=lambda text: (-len(text), text)):
        if any(contains_value(text, part) for text in texts):
            found.add(part)
            texts = [cut_value(text, part) for text in texts]
    return found, texts


def _cut_opening(text: str, rest: str, opening: str) -> str:
    """Return what is left of a message that says the opening again; another one's rest."""
    opening, text = " ".join(opening.split()), " ".join(text.split())
    is_said_again = len(opening.split()) >= _MIN_SENTENCE and opening in text
    return text.replace(opening, " . ") if is_said_again else rest


def _twins_asked_for(
    facts: Sequence[Fact], messages: Sequence[Message], answers: Set[str], matcher: str
) -> set[str]:
    """Return which facts of one answer, such as "Yes.", were told as the reply before asked."""
    told = set[str]()
    reply: str | None = None
    for message in messages:
        if message["role"] == "assistant":
            reply = message["content"]
        elif message["role"] == "user":
            said = {answer for answer in answers if contains_value(message["content"], answer)}
            asked = facts
            if said and reply is not None:
                asked = facts_asked_for(facts, find_questions(reply), told, matcher)
            told |= {fact.name for fact in asked if _bare_answer(fact) in said}
    return told


def _bare_answer(fact: Fact) -> str:
    """Return the answer without its full stop, which a word alone needs where no value tells it."""
    if not fact.value and len(fact.answer.split()) < _MIN_SENTENCE:
        return fact.answer
    return fact.answer.rstrip(f" {SENTENCE_ENDS}") or fact.answer


def _tells_most(text: str, fact: Fact) -> bool:
    """Tell whether a text has most words and all numbers of an answer, each in the same sense."""
    words = content_words(fact.answer) - content_words(fact.name) - PERSON_WORDS
    wanted, said = _by_sense(fact.answer, content_words), _by_sense(text, content_words)
    wanted = {(sense, word) for sense, word in wanted if word in words}
    if len(words) < _MIN_WORDS:
        return False
    if not _by_sense(fact.answer, find_numbers) <= _by_sense(text, find_numbers):
        return False
    return len(wanted & said) >= _SHARE_OF_WORDS * len(wanted)


def _by_sense(text: str, find: Callable[[str], set[str]]) -> set[tuple[tuple[bool, ...], str]]:
    """Return what is found in a text, and whether its clause asks, denies, doubts, compares."""
    pairs = set()
    for sentence in split_sentences(text):
        asks = has_question_mark(sentence)
        for clause in _CLAUSE.split(_SAYS_NO.sub("", sentence)):
            sense = (asks, *(pattern.search(clause) is not None for pattern in _SENSES))
            pairs |= {(sense, found) for found in find(clause)}
    return pairs


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
