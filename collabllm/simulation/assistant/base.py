"""The assistant's side of a conversation: the interface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from collabllm.event_loop import run, run_blocking
from collabllm.messages import Message
from collabllm.servers.reasoning import split_reasoning

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class AssistantReply:
    """One reply; token counts are 0 where the assistant does not know them.

    `text` is what others see; `reasoning` is what a reasoning model thought before it.
    `finish_reason` is `stop`, `length` where a limit cut the reply, or a server's own word.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    reasoning: str = ""


OnReply = Callable[[AssistantReply], None]
"""Is handed the reply as far as it is written."""


class Generates(Protocol):
    """Anything that answers a conversation with a text."""

    def generate(self, messages: Sequence[Message], /) -> str:
        """Answer a conversation that ends with the user."""


class Assistant:
    """Answers conversations; abstract: implement `generate` or `agenerate`, the other is free."""

    name: str = "assistant"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass that implements neither method.

        Raises:
            TypeError: At class definition.
        """
        super().__init_subclass__(**kwargs)
        if cls.generate is Assistant.generate and cls.agenerate is Assistant.agenerate:
            raise TypeError(f"{cls.__name__} must implement generate or agenerate.")

    def generate(self, messages: Sequence[Message]) -> str:
        """Answer a conversation that ends with the user."""
        return run(self.agenerate(messages)).text

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> AssistantReply:
        """Answer a conversation that ends with the user; many calls may run at once.

        Args:
            messages: The conversation, unchanged by the call.
            seed: For sampling, where the backend honours one.

        Raises:
            ContextFullError: If the conversation does not fit.
            ServerError: If a server behind the assistant fails for good.
        """
        return to_reply(await run_blocking(self.generate, messages))

    async def astream(
        self, messages: Sequence[Message], on_reply: OnReply, *, seed: int | None = None
    ) -> AssistantReply:
        """Do as `agenerate` does, and show the reply as it is written, where the backend can.

        Args:
            messages: The conversation, unchanged by the call.
            on_reply: Called with the whole reply so far, whenever there is more of it; after a
                failure that passes, it may begin anew.
            seed: For sampling, where the backend honours one.
        """
        return await self.agenerate(messages, seed=seed)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text; without a tokenizer, an estimate of 4 bytes per token."""
        return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def to_assistant(assistant: Assistant | Generates) -> Assistant:
    """Make an assistant of any object with `generate(messages) -> str`.

    Raises:
        TypeError: If it has no such method.
    """
    if isinstance(assistant, Assistant):
        return assistant
    if not callable(getattr(assistant, "generate", None)):
        raise TypeError(
            "An assistant needs a method generate(messages) -> str; "
            f"{type(assistant).__name__} has none."
        )
    return _Wrapped(assistant)


class _Wrapped(Assistant):
    """An assistant around a user's own object."""

    def __init__(self, inner: Generates) -> None:
        self.inner = inner
        self.name = str(getattr(inner, "name", type(inner).__name__))

    def generate(self, messages: Sequence[Message]) -> str:
        return self.inner.generate(messages)


def to_reply(text: str) -> AssistantReply:
    """Make a reply of a text, without the thoughts of a reasoning model.

    Raises:
        TypeError: If it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"generate must return a text, got {type(text).__name__}.")
    reasoning, visible = split_reasoning(text)
    return AssistantReply(visible, reasoning=reasoning)
