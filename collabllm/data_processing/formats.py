"""OpenAI chat, ShareGPT and TRL preference rows, turned into rows of the dataset format."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from collabllm.messages import shorten

logger = logging.getLogger(__name__)

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Pairs of a row's place (`row 17`) and the row."""

_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "system": "system",
}

_FILLED_IN = ("conv_id", "single_turn_prompt")  # where a row has none, or null


def bad_row(error: str) -> dict[str, Any]:
    """Stand for a row that cannot be read, until the check of rows counts or refuses it."""
    return {"prompt": None, "error": error}


class Format(NamedTuple):
    """A way to write conversations."""

    name: str
    columns: frozenset[str]
    """What its rows have."""
    reading: str
    """How it is read, in one line."""
    convert: Callable[[dict[str, Any]], list[dict[str, Any]]]


def find_format(columns: Any) -> Format | None:
    """Recognise a format by its columns; None for the dataset format and for unknown ones."""
    present = set(columns)
    if {"prompt", "completion"} <= present or "turns" in present:
        return None
    return next((known for known in FORMATS if known.columns <= present), None)


def convert_rows(rows: Rows, name: str, report: bool = True) -> Rows:
    """Turn rows of a known format into rows of the dataset format; others pass through.

    The first row that can be read tells the format; every row becomes one conversation, and what
    its user says its task, unless `single_turn_prompt` says otherwise.

    Args:
        rows: Places and rows.
        name: Name of the dataset, for the log.
        report: Whether to log it; False where rows are read again.
    """
    known: Format | None = None
    is_first = True
    for idx, (where, row) in enumerate(rows):
        if not isinstance(row, Mapping) or row.keys() == bad_row("").keys():
            yield where, row
            continue
        if is_first:
            is_first = False
            known = find_format(key for key, value in row.items() if value is not None)
            if known and report:
                logger.info("%s: read as %s: %s", name, known.name, known.reading)
        if known is None:
            yield where, row
            continue
        rest = {
            key: value
            for key, value in row.items()
            if key not in known.columns and (value is not None or key not in _FILLED_IN)
        }
        rest.setdefault("conv_id", idx)
        try:
            converted = known.convert(row)
            rest.setdefault("single_turn_prompt", _user_words(converted))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            yield where, bad_row(_describe(error, known))
            continue
        for one in converted:
            yield where, {**rest, **one}


def to_goal(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make a task of a row: what its user says, its first message, and its last or best reply.

    Returns:
        The columns of a task beside those of the row; None where the row has no known format.

    Raises:
        ValueError: If the row does not fit its format.
    """
    known = find_format(key for key, value in row.items() if value is not None)
    if known is None:
        return None
    try:
        converted = known.convert(dict(row))
        best = max(converted, key=lambda reply: (reply["score"], len(reply["prompt"])))
        users = [m["content"] for m in best["prompt"] if m["role"] == "user"]
        return {
            **{key: value for key, value in row.items() if key not in known.columns},
            "single_turn_prompt": _user_words(converted),
            "single_turn_completion": best["completion"],
            "opening": users[0],
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(_describe(error, known)) from error


def _describe(error: Exception, known: Format) -> str:
    why = f"it lacks {error}" if isinstance(error, KeyError) else error
    return f"is no row of {known.name} ({why})."


def _user_words(converted: list[dict[str, Any]]) -> str:
    """Join what the user says up to the last reply."""
    return "\n\n".join(m["content"] for m in converted[-1]["prompt"] if m["role"] == "user")


def _from_messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    messages = [
        {
            "role": "system" if m["role"] == "developer" else m["role"],
            "content": _text(m["content"]),
            "weight": m.get("weight"),
        }
        for m in _talk(row, "messages")
    ]
    return _to_replies(messages, row.get("score"))


def _from_sharegpt(row: dict[str, Any]) -> list[dict[str, Any]]:
    talk = _talk(row, "conversations")
    who, says = ("from", "value") if not talk or "from" in talk[0] else ("role", "content")
    begins = talk[0][who] if talk else None
    system = None if begins == "system" else row.get("system")
    messages = [{"role": "system", "content": system}] if system else []
    for message in talk:
        if message[who] not in _SHAREGPT_ROLES:
            raise ValueError(f"unknown speaker {message[who]!r}")
        content = _text(message[says])
        messages.append({"role": _SHAREGPT_ROLES[message[who]], "content": content})
    return _to_replies(messages, row.get("score"))


def _talk(row: dict[str, Any], name: str) -> list[Any]:
    """Return the messages of a row."""
    talk = row[name]
    if isinstance(talk, Iterable) and not isinstance(talk, str | Mapping):
        talk = list(talk)  # pandas has arrays
    if not isinstance(talk, list) or not all(isinstance(message, Mapping) for message in talk):
        raise ValueError(f"{name} must be a list of messages, got {shorten(talk)}")
    return talk


def _to_replies(messages: list[dict[str, Any]], score: Any) -> list[dict[str, Any]]:
    """Make a row of every reply that is not marked with weight 0; all have the row's score."""
    if not isinstance(score, (int, float)) or isinstance(score, bool):
        score = 1.0
    chat = [{"role": m["role"], "content": m["content"]} for m in messages]
    replies = [
        {"prompt": chat[:idx], "completion": message["content"], "score": score}
        for idx, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight") != 0
    ]
    if not replies:
        raise ValueError("it has no reply to train on")
    return replies


def _from_preference(row: dict[str, Any]) -> list[dict[str, Any]]:
    prompt = row["prompt"]
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return [
        {"prompt": chat, "completion": _last_reply(row[side], chat), "score": score}
        for side, score in (("chosen", 1.0), ("rejected", 0.0))
    ]


def _last_reply(reply: Any, chat: list[Any]) -> str:
    """Read a reply: a text, or messages that may repeat the prompt."""
    if isinstance(reply, str):
        return reply
    after = list(reply)[len(chat) :] if list(reply)[: len(chat)] == chat else list(reply)
    if len(after) != 1 or after[0]["role"] != "assistant":
        raise ValueError(f"a reply must be one message of the assistant, got {shorten(reply)}")
    return _text(after[0]["content"])


def _text(content: Any) -> str:
    """Join the text parts of a content; other parts are refused."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return "".join(part["text"] for part in content)
    raise ValueError(f"a message must have text as content, got {shorten(content)}")


FORMATS = (
    Format(  # first: such rows may have `messages`, too, with the chosen reply in it
        "TRL preference rows",
        frozenset({"prompt", "chosen", "rejected"}),
        "the chosen reply scores 1, the rejected one 0; a row is a conversation, what its user "
        "says is its task.",
        _from_preference,
    ),
    Format(
        "OpenAI chat rows",
        frozenset({"messages"}),
        "every reply without weight 0 is kept, with the row's score or unscored (1.0); a row is a "
        "conversation, what its user says is its task.",
        _from_messages,
    ),
    Format(
        "ShareGPT rows",
        frozenset({"conversations"}),
        "every reply is kept, with the row's score or unscored (1.0); a row is a conversation, "
        "what its user says is its task.",
        _from_sharegpt,
    ),
)
