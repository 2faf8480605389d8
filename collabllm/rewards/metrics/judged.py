"""Metrics and the extraction that need a language model's judgement."""

from collections.abc import Sequence

from collabllm.messages import Message
from collabllm.rewards.judge import Judge, to_json, without_orders
from collabllm.rewards.registry import (
    MetricMissingError,
    MetricTools,
    NotApplicableError,
    extractor,
    metric,
)
from collabllm.tasks import Task

_ANCHORS = (0.0, 0.5, 1.0)


@metric("interactivity", needs={"judge"})
async def interactivity(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Let the judge rate how well the assistant works with the user: 0, 0.5 or 1."""
    text = to_json(without_orders(conversation))
    return await _judge(tools).rate("judge_interactivity", _ANCHORS, conversation=text)


@metric("accuracy_judged", needs={"judge", "reference"})
async def accuracy_judged(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Let the judge compare the conversation's last answer with the reference: 0 or 1."""
    if not task.single_turn_completion.strip():
        raise NotApplicableError("the task has no reference (single_turn_completion)")
    return await _judge(tools).rate(
        "judge_accuracy",
        (0.0, 1.0),
        goal=task.single_turn_prompt,
        reference=task.single_turn_completion,
        conversation=to_json(without_orders(conversation)),
    )


@extractor("document", needs={"judge"}, judge_output_tokens=800)
async def extract_document(conversation: Sequence[Message], task: Task, tools: MetricTools) -> str:
    """Let the judge copy the latest version of the document out of the conversation."""
    return await _judge(tools).extract(conversation, task, "document")


def _judge(tools: MetricTools) -> Judge:
    if tools.judge is None:
        raise MetricMissingError("there is no judge")
    return tools.judge
