"""Generate by the vLLM that TRL's trainer keeps beside the model in training."""

from collections.abc import Callable, Sequence
from typing import Any

from collabllm.simulation.assistant.engines.base import OnIds
from collabllm.simulation.assistant.engines.batching import BatchingEngine, Outcome, Request


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
        earlier: Sequence[list[int]] = (),
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
        generation, replies = self._generation, {}
        if self._client is None:
            _, ids, _, _ = generation.generate([r.prompt_ids for r in batch], None, 1)
            replies = dict(zip(batch, ids, strict=True))
        else:  # a server may refuse more tokens than its context has room for
            for room in {self._room(request) for request in batch}:
                alike = [request for request in batch if self._room(request) == room]
                replies |= dict(zip(alike, self._ask_server(alike, room), strict=True))
        return [self._cut(list(replies[r])[: r.max_new_tokens]) for r in batch]

    def _room(self, request: Request) -> int:
        longest: int = self._generation.max_completion_length
        return min(request.max_new_tokens, longest)

    def _ask_server(self, batch: Sequence[Request], max_tokens: int) -> list[list[int]]:
        assert self._client is not None
        generation = self._generation
        found: list[list[int]] = self._client.generate(
            prompts=[request.prompt_ids for request in batch],
            repetition_penalty=generation.repetition_penalty,
            temperature=generation.temperature,
            top_p=generation.top_p,
            top_k=generation.top_k,
            min_p=generation.min_p or 0.0,
            max_tokens=max_tokens,
            structured_outputs_regex=generation.structured_outputs_regex,
            generation_kwargs=generation.generation_kwargs,
        )["completion_ids"]
        return found

    def _try_batch(self, batch: Sequence[Request]) -> list[Outcome]:
        """Generate for a batch; a server that cannot be reached is not asked again in halves."""
        try:
            return list(self._generate_batch(batch))
        except OSError as error:  # that of requests is one
            failure = RuntimeError(f"The vLLM server failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return [failure] * len(batch)
        except Exception:
            return super()._try_batch(batch)

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
