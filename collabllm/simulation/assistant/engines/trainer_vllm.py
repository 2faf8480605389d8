"""Generate by the vLLM that TRL's trainer keeps beside the model in training."""

from collections.abc import Callable, Sequence
from typing import Any

from collabllm.simulation.assistant.engines.base import OnIds
from collabllm.simulation.assistant.engines.batching import BatchingEngine, Request


class TrainerVLLMEngine(BatchingEngine):
    """Hands batches of prompts to `trl.generation.VLLMGeneration`, which has today's weights.

    It samples as the trainer's own replies do; seeds are not honoured.

    Args:
        generation: The trainer's, in either mode. A server is asked by each process for itself:
            the processes do not talk in step.
        end_token_ids: What ends a reply.
        sync: Gives vLLM the weights of this moment.
    """

    max_batch = 1024

    def __init__(
        self, generation: Any, end_token_ids: Sequence[int], sync: Callable[[], None]
    ) -> None:
        self._generation, self._sync, self._client = generation, sync, None
        if generation.mode == "server":
            self._client = getattr(generation, "vllm_client", None) or _connect(generation)
        super().__init__(generation.temperature, end_token_ids)

    async def generate(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        seed: int | None = None,
        on_ids: OnIds | None = None,
        temperature: float | None = None,
    ) -> tuple[list[int], bool]:
        """Generate in a batch with whoever else is waiting.

        Raises:
            ValueError: If the call wants another temperature than the trainer's.
        """
        if temperature not in (None, self._temperature):
            raise ValueError(
                f"The trainer's vLLM samples at {self._temperature:g}, got {temperature:g}."
            )
        return await super().generate(prompt_ids, max_new_tokens, seed)

    def _generate_batch(self, batch: Sequence[Request]) -> list[tuple[list[int], bool]]:
        prompts, generation = [request.prompt_ids for request in batch], self._generation
        if self._client is None:
            _, replies, _, _ = generation.generate(prompts, None, 1)
        else:
            replies = self._client.generate(
                prompts=prompts,
                repetition_penalty=generation.repetition_penalty,
                temperature=generation.temperature,
                top_p=generation.top_p,
                top_k=generation.top_k,
                min_p=generation.min_p or 0.0,
                max_tokens=generation.max_completion_length,
                generation_kwargs=generation.generation_kwargs,
            )["completion_ids"]
        return [
            self._cut(list(ids)[: request.max_new_tokens])
            for ids, request in zip(replies, batch, strict=True)
        ]

    def forget(self) -> None:
        """Give vLLM today's weights, after the batch under way."""
        with self._running:
            self._sync()

    def _clear(self) -> None:
        """Do nothing: vLLM minds its own cache."""


def _connect(generation: Any) -> Any:
    from trl.generation.vllm_client import VLLMClient

    address = f"http://{generation.server_host}:{generation.server_port}"
    return VLLMClient(
        base_url=generation.server_base_url or address,
        connection_timeout=generation.server_timeout,
    )
