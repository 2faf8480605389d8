"""One answer of a server: read, with what the model thought told from what it says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collabllm.servers.reasoning import split_reasoning

# Other servers' words for the two endings that matter here.
_FINISH_REASONS = {"eos": "stop", "eos_token": "stop", "end_turn": "stop", "max_tokens": "length"}


@dataclass(frozen=True)
class Completion:
    """One answer of a server.

    `text` is what others see; `reasoning` is what the model thought before it. `finish_reason` is
    `stop`, `length` where the limit cut the answer, or another word of the server's.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    reasoning: str = ""


class UnreadableAnswerError(Exception):
    """A server's answer is not a completion."""


def read_completion(text: str, request: Mapping[str, Any]) -> Completion:
    """Read a server's answer to a request.

    Raises:
        UnreadableAnswerError: If it is not a completion.
    """
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise UnreadableAnswerError(type(error).__name__) from None
    return to_completion(answer, request)


def to_completion(answer: Any, request: Mapping[str, Any]) -> Completion:
    """Make a completion of what a server's answer says.

    Raises:
        UnreadableAnswerError: If it is not a completion.
    """
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        message = choice["message"]
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        completion_tokens = int(usage.get("completion_tokens") or 0)
        reasoning, visible = split_reasoning(message.get("content") or "")
        told = message.get("reasoning_content") or message.get("reasoning") or ""
        finish_reason = choice.get("finish_reason")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UnreadableAnswerError(type(error).__name__) from None
    if not finish_reason:
        limit = request.get("max_tokens") or request.get("max_completion_tokens")
        finish_reason = "length" if limit and completion_tokens >= limit else "stop"
    return Completion(
        visible,
        prompt_tokens,
        completion_tokens,
        _FINISH_REASONS.get(finish_reason, finish_reason),
        reasoning or str(told),
    )
