"""Metrics of the texts themselves: length, repetition, similarity to the reference."""

from collections.abc import Sequence
from typing import Any

from collabllm.messages import Message
from collabllm.rewards.registry import (
    MetricMissingError,
    MetricTools,
    NotApplicableError,
    last_reply,
    metric,
)
from collabllm.tasks import Task
from collabllm.tasks.words import space_out

_REPEATED_WORDS = 4


@metric("token_amount", needs={"tokenizer"}, highest=None, lower_is_better=True)
async def token_amount(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Count the tokens of all assistant messages, by the assistant's tokenizer."""
    if tools.count_tokens is None:
        raise MetricMissingError("no tokenizer")
    return count_assistant_tokens(conversation, tools)


def count_assistant_tokens(conversation: Sequence[Message], tools: MetricTools) -> int:
    """Return the tokens of all assistant messages; 0 without a tokenizer."""
    if tools.count_tokens is None:
        return 0
    texts = (m["content"] for m in conversation if m["role"] == "assistant")
    return sum(map(tools.count_tokens, texts))


@metric("repetition", lower_is_better=True)
async def repetition(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Return the share of the assistant's runs of four words that it has used before, in [0, 1].

    A letter of a script without spaces, as Chinese, is a word. A reply of fewer words has no runs.
    """
    seen: set[tuple[str, ...]] = set()
    total = repeated = 0
    for message in conversation:
        if message["role"] != "assistant":
            continue
        words = _words(message["content"])
        for start in range(len(words) - _REPEATED_WORDS + 1):
            run = tuple(words[start : start + _REPEATED_WORDS])
            total += 1
            repeated += run in seen
            seen.add(run)
    return repeated / total if total else 0.0


def repeats_reply(reply: str, messages: Sequence[Message]) -> bool:
    """Tell whether a reply of four words or more is an earlier one again, word for word.

    Words are those of `repetition`.

    Args:
        reply: The reply.
        messages: The conversation before it.
    """
    words = _words(reply)
    return len(words) >= _REPEATED_WORDS and any(
        message["role"] == "assistant" and _words(message["content"]) == words
        for message in messages
    )


def _words(text: str) -> list[str]:
    return space_out(text.lower()).split()


@metric("bleu", needs={"reference"})
async def bleu(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Compare the last reply with the reference by sacrebleu's sentence BLEU, in [0, 1]."""
    score = _metric("BLEU").sentence_score(last_reply(conversation), [_reference(task)])
    return float(score.score) / 100


@metric("chrf", needs={"reference"})
async def chrf(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Compare the last reply with the reference by sacrebleu's chrF, in [0, 1]."""
    score = _metric("CHRF").sentence_score(last_reply(conversation), [_reference(task)])
    return float(score.score) / 100


def signatures() -> dict[str, str]:
    """Return sacrebleu's signatures, which name every setting of a score."""
    found = {}
    for name in ("BLEU", "CHRF"):
        metric = _metric(name)
        metric.sentence_score("a", ["a"])  # the signature knows the number of references then
        found[name.lower()] = str(metric.get_signature())
    return found


def _metric(name: str) -> Any:
    import sacrebleu

    # Short texts have no 4-grams: effective_order averages over the orders that exist.
    return sacrebleu.BLEU(effective_order=True) if name == "BLEU" else sacrebleu.CHRF()


def _reference(task: Task) -> str:
    if not task.single_turn_completion.strip():
        raise NotApplicableError("the task has no reference (single_turn_completion)")
    return task.single_turn_completion
