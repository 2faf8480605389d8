"""The metric of answers: is the one that a conversation came to right."""

import re
from collections.abc import Sequence

from collabllm.event_loop import run_blocking
from collabllm.messages import Message
from collabllm.rewards.extraction import find_answer, find_boxed
from collabllm.rewards.metrics.math_process import math_processes
from collabllm.rewards.registry import (
    MetricMissingError,
    MetricTools,
    NotApplicableError,
    metric,
)
from collabllm.tasks import Task

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|neither|nor|without|cannot|isn't|wasn't|aren't|can't|doesn't|don't|won't|"
    r"wouldn't|instead of|rather than|rule[sd]? out|wrong)\b|n't\b",
    re.IGNORECASE,
)
_GUESS = re.compile(
    r"^\W*(?:or )?(?:is|was|are|could|might|may|would) (?:it|this|that|they)\b|"
    r"\b(?:maybe|perhaps|possibly)\b|\b(?:could|might|may) be\b",
    re.IGNORECASE,
)
_LIST = re.compile(r"(?:\b\w+\b[^,;.!?]*[,;]\s*){2,}|\bor\b|\beither\b", re.IGNORECASE)


@metric("accuracy")
async def accuracy(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    r"""Compare the conversation's last answer with the reference: 1 when they agree, else 0.

    The last answer is that of the last reply with a marked one ("the answer is ...", `\boxed{}`);
    where none is marked, it is looked for in the last reply that has one of its kind.

    A mathematical reference (numbers, formulas, `\boxed{}`) is compared by math-verify. Any other
    one is compared as text, without case, punctuation and articles: a marked answer must equal it;
    else a sentence must state it as whole words, not negated and not as one of several guesses.
    """
    reference = task.single_turn_completion.strip()
    if not reference:
        raise NotApplicableError("the task has no reference (single_turn_completion)")
    replies = [m["content"] for m in conversation if m["role"] == "assistant"]
    if not replies:
        raise MetricMissingError("the assistant said nothing")
    marked = next((reply for reply in reversed(replies) if find_answer(reply)), None)
    if is_mathematical(reference):
        reply = marked or next((r for r in reversed(replies) if re.search(r"\d", r)), replies[-1])
        boxed = find_boxed(reply)
        answer = f"\\boxed{{{boxed}}}" if boxed is not None else reply
        expected = find_boxed(reference) or reference
        return float(await run_blocking(math_processes().verify, expected, answer))
    expected = _normalize(reference)
    if marked is not None:
        return float(_normalize(find_answer(marked) or "") == expected)
    stated = (_states(reply, expected) for reply in reversed(replies))
    return next((float(found) for found in stated if found is not None), 0.0)


def _states(reply: str, expected: str) -> bool | None:
    """Tell whether a reply states the expected words; None where it does not mention them.

    A mention in a negated sentence, or as one of several guesses, is none that counts.
    """
    sentences: list[str] = _SENTENCE.findall(reply)
    found = [s for s in sentences if f" {expected} " in f" {_normalize(s)} "]
    if not found:
        return None
    if sum(_GUESS.search(sentence) is not None for sentence in sentences) > 1:
        return False
    own = [_without_reference(sentence, expected) for sentence in found]
    return any(not _NEGATION.search(text) and not _LIST.search(text) for text in own)


def _without_reference(sentence: str, expected: str) -> str:
    """Return a sentence whose expected words are one word, so that they neither negate nor list."""
    words = r"\W+(?:(?:a|an|the)\W+)*".join(map(re.escape, expected.split()))
    return re.sub(rf"\b{words}\b", "ANSWER", sentence, flags=re.IGNORECASE)


def is_mathematical(reference: str) -> bool:
    r"""Tell whether a reference is a number or a formula: `\boxed{}`, or no word of 3 letters."""
    if "\\boxed{" in reference:
        return True
    without_commands = re.sub(r"\\[a-zA-Z]+|\b(?:sin|cos|tan|log|sqrt|pi)\b", " ", reference)
    has_signs = re.search(r"[\d\\^=+*/]", reference) is not None
    return has_signs and re.search(r"[A-Za-z]{3,}", without_commands) is None


def _normalize(text: str) -> str:
    words = re.sub(r"[^\w\s]", " ", text.casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))
