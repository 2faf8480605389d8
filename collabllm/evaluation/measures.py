"""What is measured in every finished conversation of an evaluation."""

from collections.abc import Collection, Sequence

from collabllm.messages import Message
from collabllm.rewards.metrics.facts import ASKED_RESULT
from collabllm.rewards.metrics.text import count_assistant_tokens
from collabllm.rewards.registry import (
    MetricTools,
    MetricValue,
    registered,
    score_conversation,
)
from collabllm.simulation.batch import Record
from collabllm.tasks import Task
from collabllm.tasks.matching import facts_told, find_asking, find_questions

FIRST_REPLY_ASKS = "first_reply_asks"
MINUTES_ON_TASK = "minutes_on_task"
"""What a person took, in a study."""
BUILT_IN = (FIRST_REPLY_ASKS, "num_turns", "num_tokens", "seconds")
DESCRIPTIVE = ("num_turns", "num_tokens", "seconds", MINUTES_ON_TASK)
PAYS_SILENCE = (FIRST_REPLY_ASKS, "over_asking", "asks_needlessly", "repetition")
"""What silence looks good in; a note of the report counts it, so that what it says stays true."""


def lower_is_better(metrics: Sequence[str]) -> list[str]:
    """Return those metrics that are registered so."""
    return [name for name, spec in registered(metrics).items() if spec.lower_is_better]


def without_limits(metrics: Sequence[str]) -> list[str]:
    """Return those metrics whose registered limits do not lie in [0, 1]."""
    return [name for name, spec in registered(metrics).items() if not spec.is_share]


def direction(metric: str, opening: str, lower: Collection[str] | None = None) -> int:
    """Return 1 where higher is better, -1 where lower is, 0 where neither can be said.

    Args:
        metric: Name of the metric.
        opening: What the first message tells.
        lower: The metrics of which less is better; by default as the metric is registered.
    """
    if metric in DESCRIPTIVE:
        return 0
    if metric == FIRST_REPLY_ASKS:  # a question is needed, or it is needless
        return {"none": 1, "all": -1}.get(opening, 0)
    lower = lower_is_better([metric]) if lower is None else lower
    return -1 if metric in lower else 1


async def measure(
    record: Record, task: Task, metrics: Sequence[str], tools: MetricTools
) -> dict[str, MetricValue]:
    """Score a conversation; one that says nothing about the assistant has no value, but a reason.

    Returns:
        The metrics, and `first_reply_asks` (0 or 1; not where the reference has questions),
        `num_turns` (user messages), `num_tokens` (of the assistant) and `seconds` (that the
        assistant took; not where it served others, too).
    """
    result = record.result
    names = [*metrics, *BUILT_IN]
    if result.why_unscored:
        return dict.fromkeys(names, MetricValue(None, result.why_unscored))
    values = await score_conversation(result.messages, task, list(metrics), tools)
    users = sum(message["role"] == "user" for message in result.messages)
    first = next((m["content"] for m in result.messages if m["role"] == "assistant"), "")
    built_in = {
        FIRST_REPLY_ASKS: float(bool(find_questions(first))),
        "num_turns": float(users),
        "num_tokens": float(count_assistant_tokens(result.messages, tools)),
        "seconds": result.timings.get("assistant_s", 0.0),
    }
    found = {**values, **{name: MetricValue(value) for name, value in built_in.items()}}
    if find_questions(task.single_turn_completion):
        found[FIRST_REPLY_ASKS] = MetricValue(None, ASKED_RESULT, applicable=False)
    if record.shared_time:
        found["seconds"] = MetricValue(None, "it ran beside others", applicable=False)
    return found


def score_replies(
    messages: Sequence[Message], task: Task, tools: MetricTools
) -> list[dict[str, int]]:
    """Count, for each reply of the assistant, what it took and what it brought.

    Returns:
        `tokens` and `questions`; for tasks with facts also `needless` questions and `facts_told`,
        those that the user told right after it.
    """
    replies = iter(find_asking(task.facts, messages))
    found = []
    for idx, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asking = next(replies)
        tokens = tools.count_tokens(message["content"]) if tools.count_tokens else 0
        counts = {"tokens": tokens, "questions": asking.num_questions}
        if task.facts:
            known = facts_told(task.facts, messages[:idx])
            counts["needless"] = asking.num_needless
            counts["facts_told"] = len(facts_told(task.facts, messages[: idx + 2])) - len(known)
        found.append(counts)
    return found
