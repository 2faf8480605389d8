"""An assistant behind any OpenAI-compatible server."""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from collabllm.errors import ServerError
from collabllm.messages import Message, merge_consecutive
from collabllm.servers.client import OpenAIClient, shared_client
from collabllm.simulation.assistant.base import Assistant, AssistantReply


class OpenAIAssistant(Assistant):
    """An assistant behind any OpenAI-compatible server.

    Args:
        model: The server's name of the model.
        base_url: Of the server; OpenAI's by default.
        api_key: OPENAI_API_KEY by default.
        temperature: Of sampling.
        max_tokens: Most tokens of a reply.
        client: A client to share; by default one a server.
        tokenizer_path: Hub id or folder of the model's tokenizer, for exact token counts.
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
    ) -> None:
        self.name = model
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.client = client or shared_client(base_url, api_key)
        self._tokenizer: Any = None
        if tokenizer_path:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)

    def count_tokens(self, text: str) -> int:
        """Count by the tokenizer where one was given, else estimate."""
        if self._tokenizer is None:
            return super().count_tokens(text)
        return len(self._tokenizer(text, add_special_tokens=False).input_ids)

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> AssistantReply:
        """Ask the server."""
        settings: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        if seed is not None:
            settings["seed"] = seed
        answer = await self.client.complete(
            merge_consecutive(messages), self.model, role="assistant", **settings
        )
        return AssistantReply(
            answer.text, answer.prompt_tokens, answer.completion_tokens, answer.finish_reason
        )

    def load_lora(self, name: str, path: str, timeout_s: float = 300.0) -> None:
        """Load an adapter into a running vLLM server, and use it from now on.

        Args:
            name: Under which the server will offer it; becomes this assistant's model.
            path: The adapter's folder as the server sees it.
            timeout_s: Seconds to wait.

        Raises:
            ServerError: If the server refuses; vLLM needs VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.
        """
        base = (self.client.base_url or "").rstrip("/")
        url = f"{base if base.endswith('/v1') else base + '/v1'}/load_lora_adapter"
        request = urllib.request.Request(
            url,
            data=json.dumps({"lora_name": name, "lora_path": path}).encode(),
            headers={"content-type": "application/json", **self.client.authorization()},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s):
                pass
        except (urllib.error.URLError, TimeoutError) as error:
            status = getattr(error, "code", type(error).__name__)
            raise ServerError(
                f"The server did not load the adapter ({status}). vLLM needs --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
            ) from None
        self.name = self.model = name
