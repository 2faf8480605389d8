"""Turn chat messages into `input_ids` and `labels`, for any prefix-preserving chat template."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from jinja2.exceptions import TemplateError

from collabllm.messages import Conversation, Message, to_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

IGNORE_INDEX = -100


class TokenizedConversation(TypedDict):
    """One training row; both lists have the same length, 0 when nothing fits."""

    input_ids: list[int]
    labels: list[int]
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
        when not even the first trained reply fits; `num_lost_replies` that did not fit.

    Raises:
        ValueError: If the template is missing, refuses the messages, changes earlier text when the
            conversation goes on, or writes no end token.
    """
    _check_tokenizer(tokenizer)
    trained = [
        idx
        for idx, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight") in (None, 1)
    ]
    if not trained:
        return {"input_ids": [], "labels": [], "num_lost_replies": 0}
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
        "num_lost_replies": len(ends) - len(fitting),
    }


def _render(
    chat: list[Message], trained: Sequence[int], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[str, list[_Span]]:
    """Render the chat and find its trained replies, with TRL's training template if need be."""
    rendered = _try_render(chat, trained, tokenizer, None)
    if rendered is None:
        template = _training_template(tokenizer, str(tokenizer.chat_template))
        rendered = _try_render(chat, trained, tokenizer, template) if template else None
    if rendered is None:
        raise ValueError(
            "The chat template renders earlier messages differently once the conversation goes on "
            "(it is not prefix-preserving), so a conversation cannot be trained as one row. Use "
            'turns="every" (--turns every), or set a prefix-preserving chat template.'
        )
    return rendered


def _try_render(
    chat: list[Message],
    trained: Sequence[int],
    tokenizer: "PreTrainedTokenizerBase",
    template: str | None,
) -> tuple[str, list[_Span]] | None:
    """Return the text and the spans of the trained replies, or None if prefixes change."""
    text = _apply(chat, tokenizer, template)
    spans = []
    for idx in trained:
        before = _apply(chat[:idx], tokenizer, template, add_generation_prompt=True)
        through = _apply(chat[: idx + 1], tokenizer, template).rstrip()
        if not (text.startswith(through) and through.startswith(before)):
            return None
        if through.endswith(chat[idx]["content"].rstrip()):
            raise ValueError(
                "The chat template writes no end token after a reply, so the model would never "
                "learn to stop. Set a chat template that ends each assistant message, for example "
                "with the tokenizer's eos_token."
            )
        spans.append(_Span(len(before), len(through)))
    return text, spans


def _apply(
    chat: list[Message],
    tokenizer: "PreTrainedTokenizerBase",
    template: str | None,
    add_generation_prompt: bool = False,
) -> str:
    options: dict[str, Any] = {"chat_template": template} if template else {}
    try:
        return str(
            tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=add_generation_prompt, **options
            )
        )
    except TemplateError as error:
        remedy = (
            'If it refuses the system role, train without one: system_prompt="" '
            '(--system_prompt "").'
            if chat[0]["role"] == "system"
            else "Check the roles of the conversation."
        )
        raise ValueError(f"The chat template refuses this conversation: {error}. {remedy}") from (
            error
        )


@lru_cache(maxsize=8)
def _training_template(tokenizer: "PreTrainedTokenizerBase", chat_template: str) -> str | None:
    """Find TRL's training template of the tokenizer's family; `chat_template` keys the cache."""
    from trl.chat_template_utils import get_training_chat_template  # loads torch

    try:
        template = get_training_chat_template(tokenizer)
    except ValueError:
        return None
    if template:
        logger.info("The chat template is not prefix-preserving; using TRL's training template.")
    return None if template is None else str(template)


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
