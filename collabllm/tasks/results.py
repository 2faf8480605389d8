"""Tell a result from the user's own words: what a reply adds, and whether it is about the task.

Whoever asks whether a conversation came to something asks here: the rule-based user before it ends,
and the metric `facts_used`. A copy of what the user said is no result, whatever stands around it.
"""

import re
from collections.abc import Sequence, Set

from collabllm.messages import Message
from collabllm.tasks.embeddings import has_bundled_encoder, load_encoder, warn_without_encoder
from collabllm.tasks.matching import facts_told
from collabllm.tasks.requests import cut_questions, split_sentences
from collabllm.tasks.task import Fact, Task
from collabllm.tasks.words import contains_value, content_words

MIN_NEW_WORDS = 6
"""Words of its own that a result needs, or as many as a shorter reference has."""
MIN_LIKENESS = 0.25
"""Least cosine of what a reply adds and the reference; chosen on the bank, docs/simulation.md."""

MIN_RESULT = 0.1
"""Least `rate_result` with which a user is content."""
ENOUGH = 0.5
"""Share of the reference's new words with which a result is of full length."""
UNLIKE, ALIKE = 0.25, 0.55
"""Cosines without the user's words: where likeness begins, and where it is full."""

_WORD = re.compile(r"\w+")
_MIN_NEW_IN_SENTENCE = 2
_RUN = 3


def is_result(
    reply: str, said: str, *, facts: Sequence[Fact] = (), reference: str = "", goal: str = ""
) -> bool:
    """Tell whether a reply brings a result: work of its own, on this task; see `rate_result`."""
    rate = rate_result(reply, said, facts=facts, reference=reference, goal=goal)
    return rate >= MIN_RESULT


def rate_result(
    reply: str, said: str, *, facts: Sequence[Fact] = (), reference: str = "", goal: str = ""
) -> float:
    """Rate how much of a result a reply brings, in [0, 1]: amount x likeness of what it adds.

    0 without work of its own on the task: at least `MIN_NEW_WORDS` words that neither the user nor
    the facts' questions have, and `MIN_LIKENESS` with the reference or the goal. Beside a reference
    the amount is full with half as many new words as it has, and the likeness is the cosine of both
    without the user's words. 1 where there is nothing to compare with.

    Args:
        reply: A reply of the assistant.
        said: All that the user had said before it.
        facts: Facts of the task: their names and questions are no words of the reply's own.
        reference: A good result; "" where there is none.
        goal: What the user wants; stands in for a missing reference.
    """
    known = " ".join([said, *(f"{fact.name.replace('_', ' ')} {fact.question}" for fact in facts)])
    wanted = content_words(reference)
    least = min(MIN_NEW_WORDS, len(wanted)) if wanted else MIN_NEW_WORDS
    work = find_work(reply, known, min(least, _MIN_NEW_IN_SENTENCE))
    num_new = len(content_words(work) - content_words(known))
    if num_new < least:
        return 0.0
    has_model = len(wanted) >= MIN_NEW_WORDS
    model = reference if has_model else "" if reference else goal
    amount = min(num_new / (ENOUGH * max(len(wanted - content_words(known)), 1)), 1.0)
    if model and not has_bundled_encoder():
        warn_without_encoder()
        model = ""
    if not model:
        return amount if has_model else 1.0
    stated = content_words(said)
    texts = [work, model, _without(work, stated), _without(reference, stated) or model]
    vectors = load_encoder().encode(texts)
    if float(vectors[0] @ vectors[1]) < MIN_LIKENESS:
        return 0.0
    likeness = (float(vectors[2] @ vectors[3]) - UNLIKE) / (ALIKE - UNLIKE)
    return amount * min(max(likeness, 0.0), 1.0) if has_model else 1.0


def _without(text: str, said: Set[str]) -> str:
    """Return a text without the words that the user said."""
    words = text.split()
    return " ".join(w for w in words if not content_words(w) or content_words(w) - said)


def find_work(reply: str, known: str, least: int = _MIN_NEW_IN_SENTENCE) -> str:
    """Return the sentences of a reply that say something new, and ask nothing.

    Runs of three words that are known are taken out first, so that a sentence cannot carry them.

    Args:
        reply: A reply of the assistant.
        known: What is no news.
        least: New words that make a sentence count.
    """
    old = content_words(known)
    runs = set(_runs([word.lower() for word in _WORD.findall(known)]))
    kept = [_cut_runs(sentence, runs) for sentence in split_sentences(cut_questions(reply))]
    return " ".join(sentence for sentence in kept if len(content_words(sentence) - old) >= least)


def _runs(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[idx : idx + _RUN]) for idx in range(len(words) - _RUN + 1)]


def _cut_runs(sentence: str, runs: Set[tuple[str, ...]]) -> str:
    """Take out all words that belong to one of the runs."""
    found = list(_WORD.finditer(sentence))
    copied: set[int] = set()
    for start, run in enumerate(_runs([match[0].lower() for match in found])):
        if run in runs:
            copied.update(range(start, start + _RUN))
    kept, end = "", 0
    for idx, match in enumerate(found):
        if idx in copied:
            kept, end = kept + sentence[end : match.start()], match.end()
    return " ".join((kept + sentence[end:]).split())


def share_of_values_used(task: Task, reply: str, said: str) -> float:
    """Return the share of a task's facts that a reply puts to use x its `rate_result`, in [0, 1].

    A fact counts, by its weight, when the user has told it and its value stands in the reply: a
    value that nobody told is a guess.

    Raises:
        ValueError: If no fact has a value.
    """
    facts = [fact for fact in task.facts if fact.value]
    if not facts:
        raise ValueError(f"Task {task.task_id}: no fact has a value.")
    told = facts_told(task.facts, [{"role": "user", "content": said}])
    used = sum(
        fact.weight for fact in facts if fact.name in told and contains_value(reply, fact.value)
    )
    if not used:
        return 0.0
    rate = rate_result(
        reply,
        said,
        facts=task.facts,
        reference=task.single_turn_completion,
        goal=task.single_turn_prompt,
    )
    return rate * used / sum(fact.weight for fact in facts)


def user_words(messages: Sequence[Message]) -> str:
    """Return all that the user has said in a conversation."""
    return " ".join(message["content"] for message in messages if message["role"] == "user")
