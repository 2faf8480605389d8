"""Which token a chat template begins a reply with, and which one ends it."""

from typing import TYPE_CHECKING, Any

from collabllm.data_processing.tokenization import find_end, render_chat
from collabllm.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ASKED = Message(role="user", content="hi")
_REPLY = Message(role="assistant", content="REPLY")


def end_ids(model: Any, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Collect every id that ends a reply, from model, tokenizer and chat template."""
    found = model.generation_config.eos_token_id
    ids = list(found) if isinstance(found, list) else [found]
    own = (tokenizer.eos_token_id, find_end_token(tokenizer))
    return sorted({i for i in (*ids, *own) if i is not None})


def find_end_token(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Return the token that the chat template writes after a reply, which training teaches.

    It need not be the tokenizer's `eos_token`: that of many base models ends documents.

    Returns:
        Its id; None where the template ends a reply with no token, or refuses the probe.
    """
    try:
        through = render_chat([_ASKED, _REPLY], tokenizer)
        going_on = render_chat([_ASKED, _REPLY, _ASKED], tokenizer)
    except ValueError:
        return None
    end = find_end(going_on, through, _REPLY["content"], 0, tokenizer)
    through = through[:end].rstrip()
    found = [token for token in _known(tokenizer) if through.endswith(token)]
    return _known(tokenizer)[max(found, key=len)] if found else None


def find_opening_token(tokenizer: "PreTrainedTokenizerBase", **options: Any) -> str | None:
    """Return the special token that every reply begins with, such as `<think>` or `<|channel|>`.

    Args:
        tokenizer: For its chat template.
        options: Further variables of the template.

    Returns:
        The token; None where a reply begins with what it says.

    Raises:
        ValueError: If the template refuses a conversation.
    """
    before = render_chat([_ASKED], tokenizer, add_generation_prompt=True, **options)
    through = render_chat([_ASKED, _REPLY], tokenizer, **options)
    if not through.startswith(before):  # the prompt opens what no reply shows
        return "<think>" if before.rstrip().endswith("<think>") else None
    reply = through[len(before) :].lstrip()
    found = [token for token in _known(tokenizer) if reply.startswith(token)]
    return max(found, key=len, default=None)


def _known(tokenizer: Any) -> dict[str, int]:
    """Return the tokenizer's tokens beside its vocabulary, with their ids."""
    known: dict[str, int] = dict(tokenizer.get_added_vocab())
    if tokenizer.eos_token is not None:
        known.setdefault(tokenizer.eos_token, tokenizer.eos_token_id)
    return known
