"""Turn chat messages into `input_ids` and `labels`, for any prefix-preserving chat template."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from jinja2.exceptions import TemplateError

from collabllm.messages import Conversation, Message, fold_system, to_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100


class HistoryChangesError(ValueError):
    """The chat template shows a reply differently once the conversation goes on."""


class TokenizedConversation(TypedDict):
    """One training row; both lists have the same length, 0 when nothing fits."""

    input_ids: list[int]
    labels: list[int]
    num_replies: int
    num_lost_replies: int


class _Span(NamedTuple):
    """Characters of the rendered text that hold one reply and its end token."""

    start: int
    end: int


def tokenize_conversation(
    messages: Conversation, tokenizer: "PreTrainedTokenizerBase", max_length: int | None = None
) -> TokenizedConversation:
    """Tokenize a conversation with the loss on its replies of weight 1, end tokens included.

    An assistant message without a weight counts as weight 1. What follows the last trained reply
    is left out. A conversation that is too long loses whole turns from its end, never part of one.

    Args:
        messages: Roles, contents and weights, in order.
        tokenizer: A fast tokenizer with a chat template.
        max_length: Most tokens of the row; None for no limit.

    Returns:
        `input_ids` and `labels` (`IGNORE_INDEX` where there is no loss), shape [seq], both empty
        when not even the first trained reply fits; `num_replies` of weight 1, of which
        `num_lost_replies` did not fit.

    Raises:
        HistoryChangesError: If a trained reply comes before others and the template shows it
            differently there, so that no one row has what inference sees at every reply.
        ValueError: If the template is missing, refuses the messages, or writes no end token.
    """
    _check_tokenizer(tokenizer)
    trained = [
        idx
        for idx, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight") in (None, 1)
    ]
    if not trained:
        return {"input_ids": [], "labels": [], "num_replies": 0, "num_lost_replies": 0}
    chat = to_chat(messages[: trained[-1] + 1])
    text, spans = _render(chat, trained, tokenizer)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    input_ids: list[int] = encoding["input_ids"]
    _check_single_bos(input_ids, tokenizer)
    return _label(input_ids, encoding["offset_mapping"], spans, max_length)


def _label(
    input_ids: list[int],
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[_Span],
    max_length: int | None,
) -> TokenizedConversation:
    labels = [IGNORE_INDEX] * len(input_ids)
    ends: list[int] = []  # number of tokens up to the end of each trained reply
    token_idx = 0
    for span in spans:
        while token_idx < len(offsets) and offsets[token_idx][0] < span.start:
            token_idx += 1
        while token_idx < len(offsets) and offsets[token_idx][1] <= span.end:
            labels[token_idx] = input_ids[token_idx]
            token_idx += 1
        ends.append(token_idx)
    fitting = [end for end in ends if max_length is None or end <= max_length]
    length = fitting[-1] if fitting else 0
    return {
        "input_ids": input_ids[:length],
        "labels": labels[:length],
        "num_replies": len(ends),
        "num_lost_replies": len(ends) - len(fitting),
    }


def _render(
    chat: list[Message], trained: Sequence[int], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[str, list[_Span]]:
    """Render the chat and find its trained replies.

    A reply begins where the prompt for it ends, so its context is what inference shows, and ends
    with its end token.
    """
    text = render_chat(chat, tokenizer)
    going_on = render_chat([*chat, Message(role="user", content="?")], tokenizer)
    spans = []
    for idx in trained:
        before = render_chat(chat[:idx], tokenizer, add_generation_prompt=True)
        through = render_chat(chat[: idx + 1], tokenizer)
        content = chat[idx]["content"].strip()
        if not through.startswith(before):
            if not through.startswith(render_chat(chat[:idx], tokenizer)):
                raise HistoryChangesError(_HISTORY_CHANGES)
            raise ValueError(
                f"The chat template ends the prompt with {before[-20:]!r} when a reply is to be "
                f"written, and shows replies without it, as those of thinking models do. {_REMEDY}"
            )
        end = find_end(going_on, through, content, len(before), tokenizer)
        if end is None and idx == len(chat) - 1:
            end = len(through.rstrip())
        if end is None or not text.startswith(through[:end]):
            raise HistoryChangesError(_HISTORY_CHANGES)
        if _dense(content)[-_COMPARED:] not in _dense(through[len(before) : end]):
            raise ValueError(
                f"The chat template leaves out a reply that ends with {content[-20:]!r}: it is one "
                f"for images, or for lists of parts. {_REMEDY}"
            )
        if through[:end].endswith(content):
            raise ValueError(
                "The chat template writes no end token after a reply, so the model would never "
                "learn to stop. Set a chat template that ends each assistant message, for example "
                "with the tokenizer's eos_token."
            )
        end_tokens = {*tokenizer.get_added_vocab(), tokenizer.eos_token} - {None}
        if not through[:end].endswith(tuple(end_tokens)):
            raise ValueError(
                f"The chat template ends a reply with {through[:end][-20:]!r}, and the tokenizer "
                f"has no such token, so that no reply would stop there. {_REMEDY}"
            )
        spans.append(_Span(len(before), end))
    return text, spans


def _dense(text: str) -> str:
    """Return a text without white space, which templates strip and add."""
    return "".join(text.split())


_COMPARED = 20  # characters at the end of a reply; templates rewrite thoughts at its beginning
_REMEDY = "Train with another template: scripts/train_sft.py --chat_template_path FILE.jinja."
_HISTORY_CHANGES = (
    "The chat template renders earlier messages differently once the conversation goes on (it is "
    'not prefix-preserving), so a conversation cannot be trained as one row. Use turns="every" '
    '(--turns every); where that is so already, leave the system prompt out (--system_prompt ""), '
    "or set a prefix-preserving chat template."
)


def find_end(
    going_on: str, through: str, content: str, start: int, tokenizer: "PreTrainedTokenizerBase"
) -> int | None:
    """Find where a reply ends, its end token included.

    Args:
        going_on: The conversation with a user message after it.
        through: The conversation up to the reply.
        content: Text of the reply.
        start: Where the reply starts, in both.
        tokenizer: For its special tokens.

    Returns:
        The position; None if the reply itself changes when the conversation goes on. A template
        may close a conversation with one more token (Phi 3), which then stays out.
    """
    stripped = through.rstrip()
    if going_on.startswith(stripped):
        return len(stripped)
    shared = next(
        (idx for idx, (a, b) in enumerate(zip(going_on, through, strict=False)) if a != b), 0
    )
    said = through.find(content, start, shared)
    ends = [
        position + len(token)
        for token in tokenizer.get_added_vocab()
        if said >= 0 and (position := through.find(token, said + len(content), shared)) >= 0
    ]
    return min(ends, default=None)


def render_chat(
    chat: Sequence[Message],
    tokenizer: "PreTrainedTokenizerBase",
    add_generation_prompt: bool = False,
    **options: Any,
) -> str:
    """Render messages, in training and at inference, with `place_system`.

    Args:
        chat: The messages.
        tokenizer: For its chat template.
        add_generation_prompt: End with the beginning of a reply.
        options: Further variables of the template.

    Raises:
        ValueError: If the template refuses the messages.
    """
    try:
        return str(
            tokenizer.apply_chat_template(
                place_system(chat, tokenizer),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **options,
            )
        )
    except TemplateError as error:
        raise ValueError(
            f"The chat template refuses this conversation: {error}. Check the roles and their "
            "order."
        ) from error


_PROBE = [
    Message(role="system", content="SYSTEM-PROMPT"),
    Message(role="user", content="hi"),
    Message(role="assistant", content="FIRST-REPLY"),
    Message(role="user", content="more"),
]


def place_system(chat: Sequence[Message], tokenizer: "PreTrainedTokenizerBase") -> list[Message]:
    """Copy a chat, its system prompt in the first user message where the template needs it there.

    That is where the template refuses a system prompt (Gemma 2), leaves it out (the first Phi 3) or
    does not show it before the first reply (Mistral v0.3 has it in the last user message).
    """
    if not chat or chat[0]["role"] != "system":
        return to_chat(chat)
    try:
        text = str(tokenizer.apply_chat_template(_PROBE, tokenize=False))
    except TemplateError:
        return fold_system(chat)
    shown = 0 <= text.find(_PROBE[0]["content"]) < text.find(_PROBE[2]["content"])
    return to_chat(chat) if shown else fold_system(chat)


def _check_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> None:
    if not tokenizer.chat_template:
        raise ValueError(
            f"The tokenizer of {tokenizer.name_or_path or 'the model'} has no chat template. Use a "
            "chat (instruct) model, or set tokenizer.chat_template."
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} is a slow tokenizer without character offsets; load the "
            "fast one."
        )


def _check_single_bos(input_ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and list(input_ids[:2]) == [bos, bos]:
        raise ValueError("The chat template writes the BOS token twice; remove one from it.")
