"""Which fact a question asks for, by a sentence encoder instead of hand-written words."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from collabllm.tasks.demo import demo_tasks
from collabllm.tasks.embeddings import BUNDLED_ENCODER, load_encoder
from collabllm.tasks.requests import split_question
from collabllm.tasks.task import Fact
from collabllm.tasks.words import content_words

MIN_COSINE = 0.48
"""Least cosine of a whole question and a fact; chosen on IN3's train file, docs/simulation.md."""
MIN_COSINE_OF_PART = 0.55
"""The same of a part of a question, which says less."""

_REST = re.compile(r"\s+(?:for|of|in|on|to)\s+")
_STRAYS = 0.01
_CALIBRATION_TASKS = 60
_DISTANCE = 7  # between a task and the one whose facts its questions must not find


def match_by_meaning(
    facts: Sequence[Fact], questions: Sequence[str], known: set[str], path: str = BUNDLED_ENCODER
) -> list[Fact]:
    """Give each question, and each part of it, the fact that is nearest, if it is near enough.

    Args:
        facts: Facts of the task.
        questions: From `find_questions`.
        known: Names of facts that are not asked for any more.
        path: Path of the encoder, as in `load_encoder`.
    """
    whole, part_of = least_cosines(path)
    parts = [part for question in questions for part in split_question(question)]
    least = [whole if part in questions else part_of for part in parts]
    texts = [(idx, text) for idx, fact in enumerate(facts) for text in fact_texts(fact)]
    vectors = load_encoder(path).encode([*parts, *(text for _, text in texts)])
    cosines = vectors[: len(parts)] @ vectors[len(parts) :].T  # [parts, texts]
    asked: dict[str, Fact] = {}
    for row, enough in zip(cosines, least, strict=True):
        best = int(row.argmax())
        fact = facts[texts[best][0]]
        if row[best] >= enough and fact.name not in known:
            asked.setdefault(fact.name, fact)
    return list(asked.values())


def fact_texts(fact: Fact) -> list[str]:
    """Return ways to speak of a fact; "What is the budget?" asks for "Budget for the trip"."""
    name = fact.name.replace("_", " ")
    head = _REST.split(name)[0]
    about = [text for text in (fact.question, fact.value) if text]
    ways = [name, *(f"{name}: {text}" for text in about), *([fact.question] * bool(fact.question))]
    return [*ways, head] if head != name and content_words(head) else ways


@lru_cache(maxsize=8)
def least_cosines(path: str = BUNDLED_ENCODER) -> tuple[float, float]:
    """Return the least cosines of whole questions and of parts that count, for an encoder.

    Encoders differ in what they call near. Another one lets 1% of the task bank's questions find a
    fact of an unrelated task, and no part of a question, as the bundled one does.
    """
    if path == BUNDLED_ENCODER:
        return MIN_COSINE, MIN_COSINE_OF_PART
    strayed = _cosines_of_unrelated(path)
    return float(np.quantile(strayed, 1 - _STRAYS)), max(strayed)


def _cosines_of_unrelated(path: str) -> list[float]:
    """Return for questions of the bank how near the nearest fact of an unrelated task is."""
    tasks = [task for task in demo_tasks() if task.facts][:_CALIBRATION_TASKS]
    encoder = load_encoder(path)
    found = []
    for task, other in zip(tasks, tasks[_DISTANCE:] + tasks[:_DISTANCE], strict=True):
        texts = [text for fact in other.facts for text in fact_texts(fact)]
        questions = [fact.question for fact in task.facts]
        vectors = encoder.encode([*questions, *texts])
        cosines = vectors[: len(questions)] @ vectors[len(questions) :].T
        found += [float(row.max()) for row in cosines]
    return found
