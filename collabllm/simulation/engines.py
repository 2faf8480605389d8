"""Two ways to generate for many callers at once: continuous batching, and padded batches."""

import asyncio
import logging
import threading
import time
import uuid
from typing import Any, Protocol

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from collabllm.simulation.event_loop import run_blocking

logger = logging.getLogger(__name__)

# Sizes on a CPU; on a GPU transformers infers them from the free memory.
_CPU_PAGE_TOKENS = 32
_CPU_CACHE_TOKENS = 32_768
_CPU_BATCH_TOKENS = 512
_PROBE_TIMEOUT_S = 120.0
_GATHER_S = 0.02
_PADDED_BATCH = 16


class Engine(Protocol):
    """Generates token ids for one prompt; many calls may run at once."""

    async def generate(self, prompt_ids: list[int], max_new_tokens: int) -> tuple[list[int], bool]:
        """Return the new ids, and whether the model ended by itself."""
        ...

    def close(self) -> None:
        """Stop; no call may be under way."""
        ...


class ContinuousEngine:
    """transformers' continuous batching with its prefix cache.

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
    ) -> None:
        self._eos = _eos_ids(model, tokenizer)
        sizes: dict[str, Any] = {}
        if model.device.type == "cpu":
            tokens = max(_CPU_CACHE_TOKENS, 2 * max_context)
            sizes = {
                "page_size": _CPU_PAGE_TOKENS,
                "num_blocks": tokens // _CPU_PAGE_TOKENS,
                "max_batch_tokens": _CPU_BATCH_TOKENS,
            }
        generation = GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=self._eos,
            pad_token_id=tokenizer.pad_token_id or self._eos[0],
            **sampling,
        )
        try:
            self._manager = model.init_continuous_batching(
                generation_config=generation,
                continuous_batching_config=ContinuousBatchingConfig(**sizes),
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

    async def generate(self, prompt_ids: list[int], max_new_tokens: int) -> tuple[list[int], bool]:
        """Queue the prompt and wait for its end; a cancelled call leaves the batch."""
        request_id = uuid.uuid4().hex
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._manager.register_result_handler(
            request_id, lambda result: None if done.done() else done.set_result(result)
        )
        accepted = self._manager.add_request(
            prompt_ids,
            request_id=request_id,
            max_new_tokens=max_new_tokens,
            eos_token_id=self._eos,
        )
        if accepted is None:
            raise RuntimeError("The local engine has stopped; make a new LocalAssistant.")
        try:
            result = await done
        except asyncio.CancelledError:
            self._manager.cancel_request(request_id)
            raise
        if result.error:
            raise RuntimeError(f"The local engine failed: {result.error}")
        ids = list(result.generated_tokens)
        return ids, bool(ids) and ids[-1] in self._eos

    def close(self) -> None:
        """Stop the engine's thread and free its cache."""
        self._manager.stop(block=True, timeout=30, hard_stop=True)


class PaddedEngine:
    """Plain `generate` on left-padded batches of whoever waits; encodes the history each time."""

    def __init__(self, model: Any, tokenizer: Any, sampling: dict[str, Any]) -> None:
        self._model, self._sampling = model, sampling
        self._eos = _eos_ids(model, tokenizer)
        self._waiting: list[tuple[list[int], int, asyncio.Future[Any]]] = []
        self._busy = threading.Lock()

    async def generate(self, prompt_ids: list[int], max_new_tokens: int) -> tuple[list[int], bool]:
        """Wait a moment for company, then generate with it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[list[int], bool]] = loop.create_future()
        self._waiting.append((prompt_ids, max_new_tokens, done))
        await asyncio.sleep(_GATHER_S)
        if not done.done():
            await run_blocking(self._serve, done)
        return await done

    def _serve(self, mine: "asyncio.Future[Any]") -> None:
        """Serve waiting callers, one batch at a time, until `mine` is served."""
        with self._busy:
            while any(entry[2] is mine for entry in self._waiting):
                batch, self._waiting = (
                    self._waiting[:_PADDED_BATCH],
                    self._waiting[_PADDED_BATCH:],
                )
                try:
                    outcomes: list[Any] = self._generate_batch(batch)
                except RuntimeError as error:
                    outcomes = [error] * len(batch)
                for (_, _, done), outcome in zip(batch, outcomes, strict=True):
                    done.get_loop().call_soon_threadsafe(_settle, done, outcome)

    def _generate_batch(self, batch: list[Any]) -> list[tuple[list[int], bool]]:
        width = max(len(ids) for ids, _, _ in batch)
        rows = [[self._eos[0]] * (width - len(ids)) + ids for ids, _, _ in batch]
        masks = [[0] * (width - len(ids)) + [1] * len(ids) for ids, _, _ in batch]
        device = self._model.device
        with torch.no_grad():
            output = self._model.generate(
                input_ids=torch.tensor(rows, device=device),  # [batch, width]
                attention_mask=torch.tensor(masks, device=device),
                max_new_tokens=max(limit for _, limit, _ in batch),
                eos_token_id=self._eos,
                pad_token_id=self._eos[0],
                **self._sampling,
            )
        outcomes = []
        for new_ids, (_, limit, _) in zip(output[:, width:].tolist(), batch, strict=True):
            ends = [idx for idx, token in enumerate(new_ids) if token in self._eos]
            length = min(ends[0] + 1 if ends else len(new_ids), limit)
            outcomes.append((new_ids[:length], bool(ends) and ends[0] < limit))
        return outcomes

    def close(self) -> None:
        """Nothing runs between calls."""


def _settle(done: "asyncio.Future[Any]", outcome: Any) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _eos_ids(model: Any, tokenizer: Any) -> list[int]:
    """Collect every id that ends a reply, from model and tokenizer."""
    found = model.generation_config.eos_token_id
    ids = list(found) if isinstance(found, list) else [found]
    return sorted({i for i in (*ids, tokenizer.eos_token_id) if i is not None})
