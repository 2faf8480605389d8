"""Generate for many callers at once by transformers' continuous batching; meant for GPUs."""

import asyncio
import importlib.util
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig

from collabllm.data_processing.reply_tokens import end_ids
from collabllm.event_loop import get_loop
from collabllm.simulation.assistant.engines.base import STOPPED, OnIds

logger = logging.getLogger(__name__)

# The prefix cache shares whole pages, so that histories shorter than transformers' 256 tokens would
# be encoded anew each turn; FlashAttention wants its 256.
_PAGE_TOKENS = 32
# Further sizes on a CPU; on a GPU transformers infers them from the free memory.
_CPU_CACHE_TOKENS = 32_768
_CPU_BATCH_TOKENS = 512
# transformers 5.17 calls it block_size.
_PAGE_SIZE = "page_size" if hasattr(ContinuousBatchingConfig, "page_size") else "block_size"
_PROBE_TIMEOUT_S = 120.0
_WATCH_S = 2.0


_SLOW = (
    "Neither `kernels` nor FlashAttention is installed, so many conversations at once are slow on "
    "this GPU: pip install kernels, or serve with vLLM: --assistant vllm --vllm_command 'uvx vllm "
    "serve'."
)


def _has_flash_attention() -> bool:
    names = ("kernels", "flash_attn", "flash_attn_interface")
    return any(importlib.util.find_spec(name) for name in names)


class ContinuousEngine:
    """transformers' continuous batching with its prefix cache.

    Args:
        model: To generate with.
        tokenizer: Its tokenizer.
        sampling: `do_sample`, and where it is true `temperature`, `top_p` and `top_k`.
        max_context: Most tokens of prompt and reply.
        max_new_tokens: Most tokens of a reply.
        memory_share: Share of a GPU's free memory for keys and values; transformers' by default.
        own_temperatures: Let each call choose its temperature.

    Raises:
        RuntimeError: If the model does not support it, found out by generating one token.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: dict[str, Any],
        max_context: int,
        max_new_tokens: int,
        memory_share: float | None = None,
        own_temperatures: bool = False,
    ) -> None:
        self._eos = end_ids(model, tokenizer)
        self._own_temperatures = own_temperatures and sampling["do_sample"]
        options: dict[str, Any] = {"max_memory_percent": memory_share}
        if model.device.type == "cpu" or not _has_flash_attention():
            options[_PAGE_SIZE] = _PAGE_TOKENS
        if model.device.type == "cpu":
            options["num_blocks"] = max(_CPU_CACHE_TOKENS, 2 * max_context) // _PAGE_TOKENS
            options["max_batch_tokens"] = _CPU_BATCH_TOKENS
        elif not _has_flash_attention():
            logger.warning(_SLOW)
        if self._own_temperatures:
            options["per_request_processors"] = True
            if sampling["temperature"] == 1:  # transformers would leave temperatures out
                sampling = {**sampling, "temperature": 1 + 1e-6}
        generation = GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=self._eos,
            pad_token_id=tokenizer.pad_token_id or self._eos[0],
            **sampling,
        )
        try:
            self._manager = model.init_continuous_batching(
                generation_config=generation,
                continuous_batching_config=ContinuousBatchingConfig(**options),
            )
            self._manager.start()
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        self._probe(tokenizer)

    def _probe(self, tokenizer: Any) -> None:
        """Generate one token, because an unsupported model fails in the engine's own thread."""
        ids = tokenizer("Hello").input_ids[:4] or [0]
        self._manager.add_request(ids, request_id="probe", max_new_tokens=1)
        deadline = time.monotonic() + _PROBE_TIMEOUT_S
        result = None
        while result is None and time.monotonic() < deadline:
            result = self._manager.get_result(request_id="probe", timeout=0.1)
            if self._manager.background_thread_status.fatal_error is not None:
                break
        if result is None or result.error:
            failure = self._manager.background_thread_status.fatal_error
            self._manager.stop(block=True, timeout=10, hard_stop=True)
            raise RuntimeError(str(result.error if result else failure or "no answer"))

    async def generate(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        seed: int | None = None,
        on_ids: OnIds | None = None,
        temperature: float | None = None,
        earlier: Sequence[list[int]] = (),
    ) -> tuple[list[int], bool]:
        """Queue the prompt and wait for its end; a cancelled call leaves the batch.

        The manager has one random stream for all requests, so `seed` is not honoured. It hands a
        batch of results to the loop of one of them, so all calls go through one loop that stays.
        """
        own: dict[str, float] = {}
        if temperature is not None:
            if not (self._own_temperatures and temperature > 0):
                raise ValueError(
                    f"temperature {temperature:g}: continuous batching has one temperature for "
                    "all; own_temperatures=True lets calls that sample choose theirs."
                )
            own["temperature"] = float(temperature)
        loop = asyncio.get_running_loop()
        if loop is get_loop():
            return await self._generate(prompt_ids, max_new_tokens, on_ids, own)

        def show(so_far: list[int]) -> None:
            if on_ids is not None:
                loop.call_soon_threadsafe(on_ids, so_far)

        call = self._generate(prompt_ids, max_new_tokens, on_ids and show, own)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, get_loop()))

    async def _generate(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        on_ids: OnIds | None,
        own: dict[str, float],
    ) -> tuple[list[int], bool]:
        request_id = uuid.uuid4().hex
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def take(result: Any) -> None:
            if done.done():
                return
            if result.is_finished() or result.error:
                done.set_result(result)
            elif on_ids is not None:
                on_ids(list(result.generated_tokens))

        self._manager.register_result_handler(request_id, take)
        accepted = self._manager.add_request(
            prompt_ids,
            request_id=request_id,
            max_new_tokens=max_new_tokens,
            eos_token_id=self._eos,
            streaming=on_ids is not None,
            **own,
        )
        if accepted is None:
            raise self._stopped()
        try:
            while not (await asyncio.wait([done], timeout=_WATCH_S))[0]:
                if not self._manager.is_running():
                    raise self._stopped()
        except asyncio.CancelledError:
            self._manager.cancel_request(request_id)
            raise
        result = done.result()
        if result.error:
            raise RuntimeError(f"The local engine failed: {result.error}")
        ids = list(result.generated_tokens)
        return ids, bool(ids) and ids[-1] in self._eos

    def _stopped(self) -> RuntimeError:
        """Say why the engine's thread has ended."""
        failure = self._manager.background_thread_status.fatal_error
        return RuntimeError(f"The local engine failed: {failure}" if failure else STOPPED)

    def warmup(self) -> None:
        """Capture the GPU's graphs, between two steps of what is under way."""
        with getattr(self._manager, "pause", nullcontext)():  # transformers 5.17 has no pause
            self._manager.warmup()

    def close(self) -> None:
        """Stop the engine's thread, fail what is under way, and free the cache."""
        self._manager.stop(block=True, timeout=30, hard_stop=True)
