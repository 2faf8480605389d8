"""Messages and conversations: the one place that knows roles and their order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Message(TypedDict):
    """One entry of a conversation.

    `weight` follows OpenAI's fine-tuning format: on an assistant message, 1 trains on it and 0
    keeps it as context only.
    """

    role: Role
    content: str
    weight: NotRequired[int | None]


Conversation = Sequence[Message]


def find_prompt_error(messages: Any) -> str | None:
    """Say what is wrong with a prompt, or return None for a good one.

    A prompt is an optional system message, then user and assistant in turn, ending with the user.
    An empty user message is legal; real logs have them.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return f"must be a non-empty list of messages, got {shorten(messages)}"
    for idx, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            return f"message {idx} must be a dict with 'role' and 'content', got {shorten(message)}"
        if message["role"] not in ROLES:
            return f"message {idx} has the unknown role {message['role']!r}; use {', '.join(ROLES)}"
        if not isinstance(message["content"], str):
            return f"message {idx} must have text as content, got {shorten(message['content'])}"
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    for idx, message in enumerate(turns, start=len(messages) - len(turns)):
        expected = "user" if (idx - (len(messages) - len(turns))) % 2 == 0 else "assistant"
        if message["role"] != expected:
            return (
                f"roles are out of order: message {idx} is {message['role']!r} where {expected!r} "
                "belongs; user and assistant alternate, starting with the user"
            )
    if messages[-1]["role"] != "user":
        return f"must end with the user message to answer, but ends with {messages[-1]['role']!r}"
    return None


def with_system_prompt(messages: Conversation, system_prompt: str | None) -> list[Message]:
    """Copy a conversation with the system prompt first, unless it brings its own or none is set."""
    if not system_prompt or (messages and messages[0]["role"] == "system"):
        return [message.copy() for message in messages]
    return [
        Message(role="system", content=system_prompt),
        *(message.copy() for message in messages),
    ]


def to_valid_text(text: str) -> str:
    """Copy a text with lone surrogates, which no file or server takes, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def merge_consecutive(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Copy messages, joining neighbours of one role by a blank line, as templates expect."""
    merged: list[Message] = []
    for message in to_chat(messages):
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"] += "\n\n" + message["content"]
        else:
            merged.append(message)
    return merged


def fold_system(messages: Conversation) -> list[Message]:
    """Copy messages with the system prompt moved into the first user message.

    For chat templates that refuse the system role.
    """
    if not messages or messages[0]["role"] != "system":
        return to_chat(messages)
    system, *rest = to_chat(messages)
    if not rest or rest[0]["role"] != "user":
        return [Message(role="user", content=system["content"]), *rest]
    first = Message(role="user", content=f"{system['content']}\n\n{rest[0]['content']}")
    return [first, *rest[1:]]


def to_chat(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Copy messages down to role and content, as chat templates and servers expect them."""
    return [Message(role=message["role"], content=message["content"]) for message in messages]


def shorten(value: Any, limit: int = 80) -> str:
    """Return the repr of a value, cut to `limit` characters, for error messages."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
