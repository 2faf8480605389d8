"""An assistant behind any OpenAI-compatible server."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabllm.event_loop import run
from collabllm.hub import looks_local
from collabllm.messages import Message, merge_consecutive
from collabllm.servers.adapters import unique_name
from collabllm.servers.client import Completion, OpenAIClient, shared_client
from collabllm.simulation.assistant.base import Assistant, AssistantReply, OnReply

logger = logging.getLogger(__name__)


class OpenAIAssistant(Assistant):
    """An assistant behind any OpenAI-compatible server.

    Args:
        model: The server's name of the model.
        base_url: Address of the server; OpenAI's by default.
        api_key: OPENAI_API_KEY by default.
        temperature: Sampling temperature.
        max_tokens: Most tokens of a reply, thoughts included.
        client: A client to share; by default one per server.
        tokenizer_path: Hub id or folder of the model's tokenizer, for exact token counts.
        top_p: Sample from the likeliest tokens with this much probability; the server's default by
            default.
        reasoning_effort: How much a reasoning model thinks: `low`, `medium`, `high`, …
        enable_thinking: Switch a hybrid model's thoughts on or off, by its chat template.
        extra_body: Further fields of each request, as they are.
        seeds: Send the seed of each reply; without, the server samples as it likes.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        temperature: float = 0.7,
        max_tokens: int = 1024,
        client: OpenAIClient | None = None,
        tokenizer_path: str | None = None,
        top_p: float | None = None,
        reasoning_effort: str | None = None,
        enable_thinking: bool | None = None,
        extra_body: Mapping[str, Any] | None = None,
        seeds: bool = True,
    ) -> None:
        self.name = model
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.client = client or shared_client(base_url, api_key)
        self._seeds = seeds
        self._options: dict[str, Any] = {}
        if top_p is not None:
            self._options["top_p"] = top_p
        if reasoning_effort is not None:
            self._options["reasoning_effort"] = reasoning_effort
        extra = dict(extra_body or {})
        if enable_thinking is not None:
            template = dict(extra.get("chat_template_kwargs") or {})
            extra["chat_template_kwargs"] = {**template, "enable_thinking": enable_thinking}
        if extra:
            self._options["extra_body"] = extra
        self._tokenizer_path = tokenizer_path
        self._tokenizer: Any = None
        if tokenizer_path:
            from collabllm.models import load_tokenizer  # torch loads here

            self._tokenizer = load_tokenizer(tokenizer_path)

    def count_tokens(self, text: str) -> int:
        """Count by the tokenizer where one was given, else estimate."""
        if self._tokenizer is None:
            return super().count_tokens(text)
        return len(self._tokenizer(text, add_special_tokens=False).input_ids)

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> AssistantReply:
        """Ask the server."""
        return await self._ask(messages, seed)

    async def astream(
        self, messages: Sequence[Message], on_reply: OnReply, *, seed: int | None = None
    ) -> AssistantReply:
        """Ask the server, and show the reply as it comes; tokens are known at the end."""
        return await self._ask(messages, seed, lambda answer: on_reply(_to_reply(answer)))

    async def _ask(
        self,
        messages: Sequence[Message],
        seed: int | None,
        on_completion: Callable[[Completion], None] | None = None,
    ) -> AssistantReply:
        settings: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        if seed is not None:
            settings["seed" if self._seeds else "sample"] = seed
        answer = await self.client.complete(
            merge_consecutive(messages),
            self.model,
            role="assistant",
            on_completion=on_completion,
            **settings,
            **self._options,
        )
        return _to_reply(answer)

    async def preflight(self) -> None:
        """Ask the server for one short answer before a run.

        Raises:
            ServerError: With address and cause, if it does not answer.
            ValueError: If there is a cost limit and the model has no price.
        """
        await self.client.preflight(self.model, role="assistant")

    def load_lora(self, name: str, path: str, timeout_s: float = 300.0) -> None:
        """Load an adapter into a running vLLM server, and use it from now on.

        An adapter that the server has under this name gives way to the new one; answers of the two
        are kept apart in a cache, by the adapter's content where its folder can be read from here.
        It costs what the model before it does.

        Args:
            name: Under which the server will offer it; becomes this assistant's model.
            path: The adapter's folder as the server sees it.
            timeout_s: Seconds to wait.

        Raises:
            ServerError: If the server refuses; vLLM needs VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
        """
        run(self.client.load_lora(name, path, timeout_s))
        if price := self.client.ledger.price(self.model):
            self.client.ledger.add_prices({name: price})
        self.name = self.model = name

    def use_adapter(self, lora_path: str) -> None:
        """Load an adapter as `load_lora` does, under a name of its own.

        Args:
            lora_path: A Hub id, or a folder that the server can read under the same path.
        """
        path = str(Path(lora_path).expanduser().resolve()) if looks_local(lora_path) else lora_path
        self.load_lora(unique_name(path), path)
        self.name = lora_path
        if self._tokenizer_path:
            self._compare_template(self._tokenizer_path, lora_path)

    def _compare_template(self, tokenizer_path: str, lora_path: str) -> None:
        """Warn where an adapter was trained under another chat template than the model's."""
        from collabllm.models import load_tokenizer

        own = load_tokenizer(tokenizer_path, adapter=lora_path)
        if own.chat_template != self._tokenizer.chat_template:
            logger.warning(
                "%s has a chat template of its own, but a server answers under that of its model; "
                "start one for this adapter with --chat-template %s/chat_template.jinja.",
                lora_path,
                lora_path,
            )


def _to_reply(answer: Completion) -> AssistantReply:
    tokens = answer.prompt_tokens, answer.completion_tokens
    return AssistantReply(answer.text, *tokens, answer.finish_reason, answer.reasoning)
