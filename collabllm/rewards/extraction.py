"""Find the final artefact of a conversation: by rule where possible, else by a language model."""

import re
from collections.abc import Callable, Sequence

from collabllm.messages import Message
from collabllm.rewards.registry import MetricMissingError, MetricTools
from collabllm.tasks import Task

_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_ANSWER_IS = re.compile(
    r"\b(?:final answer|answer|result)\b\s*(?:is|:|=)\s*:?\s*(.+?)(?:\.\s|\.$|\n|$)", re.IGNORECASE
)


def find_code(text: str) -> str | None:
    """Return the last fenced block of a text."""
    blocks: list[str] = _FENCED.findall(text)
    return blocks[-1].strip("\n") if blocks else None


def find_answer(text: str) -> str | None:
    r"""Return what the last `\boxed{}` holds, or what follows the last "answer is"."""
    boxed = find_boxed(text)
    if boxed is not None:
        return boxed
    found = _ANSWER_IS.findall(text)
    return found[-1].strip(" *$") if found else None


def find_boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{}`, whose braces may be nested."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    begin = start + len("\\boxed{")
    for idx in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[idx], 0)
        if depth == 0:
            return text[begin:idx]
    return None


async def extract_code(conversation: Sequence[Message], task: Task, tools: MetricTools) -> str:
    """Return the last fenced block of the assistant, else what the judge finds."""
    return await _extract(conversation, task, tools, find_code, "code")


async def extract_answer(conversation: Sequence[Message], task: Task, tools: MetricTools) -> str:
    """Return the assistant's last marked answer, else what the judge finds."""
    return await _extract(conversation, task, tools, find_answer, "answer")


async def _extract(
    conversation: Sequence[Message],
    task: Task,
    tools: MetricTools,
    find: Callable[[str], str | None],
    kind: str,
) -> str:
    for message in reversed(conversation):
        if message["role"] == "assistant" and (found := find(message["content"])):
            return found
    if tools.judge is None:
        raise MetricMissingError(f"no {kind} is marked in the conversation, and there is no judge")
    return await tools.judge.extract(conversation, task, kind)
