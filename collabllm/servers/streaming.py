"""A completion that comes in pieces (server-sent events), put together as it comes."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from collabllm.servers.completion import Completion, UnreadableAnswerError, to_completion

STREAM = {"stream": True, "stream_options": {"include_usage": True}}
OnCompletion = Callable[[Completion], None]


async def read_stream(
    lines: AsyncIterator[str], request: Mapping[str, Any], on_completion: OnCompletion
) -> Completion:
    """Read the pieces of a completion to their end.

    Args:
        lines: Lines of the answer.
        request: What was asked.
        on_completion: Called with all that has come so far, whenever there is more text.

    Raises:
        UnreadableAnswerError: If a piece is none, or the stream ends before the completion does.
    """
    message = {"content": "", "reasoning": ""}
    choice: dict[str, Any] = {"message": message, "finish_reason": None}
    answer: dict[str, Any] = {"choices": [choice], "usage": {}}
    is_whole = False
    async for line in lines:
        data = line.partition("data:")[2].strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            is_whole = True
            break
        if data and _add(answer, data):
            on_completion(to_completion(answer, request))
    if not is_whole and choice["finish_reason"] is None:
        raise UnreadableAnswerError("the stream ended early")
    return to_completion(answer, request)


def _add(answer: dict[str, Any], data: str) -> bool:
    """Add a piece; tell whether it had text."""
    try:
        piece = json.loads(data)
        answer["usage"] = piece.get("usage") or answer["usage"]
        if not piece.get("choices"):
            if "error" in piece:
                raise UnreadableAnswerError("the server failed in the middle")
            return False
        whole, found = answer["choices"][0], piece["choices"][0]
        whole["finish_reason"] = found.get("finish_reason") or whole["finish_reason"]
        delta = found.get("delta") or {}
        text = str(delta.get("content") or "")
        thought = str(delta.get("reasoning_content") or delta.get("reasoning") or "")
        whole["message"]["content"] += text
        whole["message"]["reasoning"] += thought
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UnreadableAnswerError(type(error).__name__) from None
    return bool(text or thought)
