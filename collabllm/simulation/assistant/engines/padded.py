"""Generate for many callers at once in padded batches with a reused cache, the way for CPUs.

On a CPU this beats continuous batching, which gathers every cached page again for each token.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from collabllm.simulation.assistant.engines.base import end_ids
from collabllm.simulation.assistant.engines.cpu_attention import use_grouped_attention
from collabllm.simulation.assistant.engines.seeded_sampling import SeededSampling

# A batch starts when nobody new has come for this share of the last batch's time, within limits: a
# caller that just misses a batch would wait for all of it, and then run in a smaller one.
_QUIET_SHARE = 0.15
_QUIET_LIMITS_S = (0.03, 1.0)
_FIRST_QUIET_S = 0.3
_MAX_BATCH = 16
_MAX_STORE_BYTES = 2**30

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, shape [heads, tokens, head_dim]."""


@dataclass(eq=False)
class _Request:
    prompt_ids: list[int]
    max_new_tokens: int
    seed: int | None
    done: "asyncio.Future[Any]"


@dataclass
class _Prefix:
    ids: np.ndarray[Any, Any]
    layers: Layers

    @property
    def num_bytes(self) -> int:
        return sum(2 * keys.numel() * keys.element_size() for keys, _ in self.layers)


class PrefixStore:
    """Keys and values of conversations so far; the longest unused ones go first when full.

    Args:
        max_bytes: Most memory to hold.
    """

    def __init__(self, max_bytes: int = _MAX_STORE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._prefixes: list[_Prefix] = []  # least recently used first

    def find(self, ids: Sequence[int]) -> Layers:
        """Return the layers of the longest stored prefix of `ids`, short of its last token."""
        wanted = np.asarray(ids[:-1])
        lengths = [_common_length(wanted, prefix.ids) for prefix in self._prefixes]
        length = max(lengths, default=0)
        if not length:
            return []
        best = self._prefixes.pop(lengths.index(length))
        self._prefixes.append(best)
        return [(keys[:, :length], values[:, :length]) for keys, values in best.layers]

    def add(self, ids: Sequence[int], layers: Layers) -> None:
        """Store a conversation in place of what it continues."""
        new = _Prefix(np.asarray(ids), layers)
        self._prefixes = [
            old for old in self._prefixes if _common_length(new.ids, old.ids) < len(old.ids)
        ]
        self._prefixes.append(new)
        while len(self._prefixes) > 1 and self.num_bytes > self._max_bytes:
            self._prefixes.pop(0)

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(prefix.num_bytes for prefix in self._prefixes)

    def clear(self) -> None:
        """Free all memory."""
        self._prefixes.clear()


class PaddedEngine:
    """Plain `generate` on left-padded batches of whoever waits; encodes only what is new."""

    def __init__(self, model: Any, tokenizer: Any, sampling: dict[str, Any]) -> None:
        self.prompt_tokens_encoded = 0
        self._model, self._sampling = model, sampling
        use_grouped_attention(model)
        self._eos = end_ids(model, tokenizer)
        self._store = PrefixStore()
        self._waiting: list[_Request] = []
        self._changed = threading.Condition()
        self._quiet_s = _FIRST_QUIET_S
        self._closed = False
        # One thread for all batches: torch keeps a team of workers for every thread that calls it.
        self._thread = threading.Thread(target=self._serve, name="collabllm-padded", daemon=True)
        self._thread.start()

    async def generate(
        self, prompt_ids: list[int], max_new_tokens: int, seed: int | None = None
    ) -> tuple[list[int], bool]:
        """Wait for company until nobody else has come for a moment, then generate with it."""
        done = asyncio.get_running_loop().create_future()
        request = _Request(prompt_ids, max_new_tokens, seed, done)
        with self._changed:
            if self._closed:
                raise RuntimeError("The local engine has stopped; make a new LocalAssistant.")
            self._waiting.append(request)
            self._changed.notify()
        try:
            outcome: tuple[list[int], bool] = await done
        finally:  # a cancelled call leaves the queue
            with self._changed:
                if request in self._waiting:
                    self._waiting.remove(request)
        return outcome

    def _serve(self) -> None:
        """Serve waiting callers, one batch at a time, until closed."""
        while batch := self._next_batch():
            started = time.perf_counter()
            try:
                outcomes: Sequence[Any] = self._generate_batch(batch)
            except (RuntimeError, ValueError) as error:
                outcomes = [error] * len(batch)
            shortest, longest = _QUIET_LIMITS_S
            share = _QUIET_SHARE * (time.perf_counter() - started)
            self._quiet_s = min(max(share, shortest), longest)
            for request, outcome in zip(batch, outcomes, strict=True):
                request.done.get_loop().call_soon_threadsafe(_settle, request.done, outcome)

    def _next_batch(self) -> list[_Request]:
        """Wait until there is a batch to start; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            num_waiting = 0
            while num_waiting != len(self._waiting) < _MAX_BATCH and not self._closed:
                num_waiting = len(self._waiting)
                self._changed.wait_for(
                    lambda: len(self._waiting) >= _MAX_BATCH or self._closed, self._quiet_s
                )
            if self._closed:
                return []
            batch = self._waiting[:_MAX_BATCH]
            self._waiting = self._waiting[_MAX_BATCH:]
        return batch or self._next_batch()  # all of them may have been cancelled

    def _generate_batch(self, batch: Sequence[_Request]) -> list[tuple[list[int], bool]]:
        """Generate for a batch; each row is [padding, cached, padding, new prompt, reply]."""
        found = [self._store.find(request.prompt_ids) for request in batch]
        cached = [layers[0][0].shape[1] if layers else 0 for layers in found]
        old_width = max(cached)
        new_width = max(len(r.prompt_ids) - n for r, n in zip(batch, cached, strict=True))
        self.prompt_tokens_encoded += sum(len(r.prompt_ids) for r in batch) - sum(cached)
        ids: list[list[int]] = []
        mask: list[list[int]] = []
        for request, length in zip(batch, cached, strict=True):
            num_new = len(request.prompt_ids) - length
            old_pad, new_pad = [0] * (old_width - length), [0] * (new_width - num_new)
            old_ids, new_ids = request.prompt_ids[:length], request.prompt_ids[length:]
            ids.append(old_pad + old_ids + new_pad + new_ids)
            mask.append(old_pad + [1] * length + new_pad + [1] * num_new)
        device = self._model.device
        attention_mask = torch.tensor(mask, device=device)  # [batch, old_width + new_width]
        with torch.no_grad():
            output = self._model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=attention_mask,
                past_key_values=_to_cache(found, old_width) if old_width else None,
                max_new_tokens=max(request.max_new_tokens for request in batch),
                eos_token_id=self._eos,
                pad_token_id=self._eos[0],
                return_dict_in_generate=True,
                do_sample=False,
                logits_processor=self._sampler([request.seed for request in batch]),
            )
        width = old_width + new_width
        outcomes = []
        for new_ids, request in zip(output.sequences[:, width:].tolist(), batch, strict=True):
            ends = [idx for idx, token in enumerate(new_ids) if token in self._eos]
            length = min(ends[0] + 1 if ends else len(new_ids), request.max_new_tokens)
            stopped = bool(ends) and ends[0] < request.max_new_tokens
            outcomes.append((new_ids[:length], stopped))
        self._remember(batch, outcomes, attention_mask.bool(), output.past_key_values)
        return outcomes

    def _sampler(self, seeds: list[int | None]) -> LogitsProcessorList:
        settings = dict(self._sampling)
        if not settings.pop("do_sample"):
            return LogitsProcessorList()
        return LogitsProcessorList([SeededSampling(seeds, device=self._model.device, **settings)])

    def _remember(
        self,
        batch: Sequence[_Request],
        outcomes: Sequence[tuple[list[int], bool]],
        mask: torch.Tensor,
        cache: Any,
    ) -> None:
        """Store each row's keys and values without padding, where the cache is a plain one."""
        layers = getattr(cache, "layers", ())
        if not layers or any(type(layer) is not DynamicLayer for layer in layers):
            return
        width, total = mask.shape[1], layers[0].keys.shape[2]
        for row, (request, (new_ids, _)) in enumerate(zip(batch, outcomes, strict=True)):
            num_new = min(len(new_ids), total - width)  # the last token was never fed back
            keep = torch.cat(
                [mask[row].nonzero()[:, 0], torch.arange(width, width + num_new).to(mask.device)]
            )
            self._store.add(
                request.prompt_ids + new_ids[:num_new],
                [(layer.keys[row][:, keep], layer.values[row][:, keep]) for layer in layers],
            )

    def close(self) -> None:
        """Stop after the batch under way, and free the cache."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._store.clear()


def _to_cache(found: Sequence[Layers], width: int) -> DynamicCache:
    """Put stored prefixes into one left-padded cache, shape [batch, heads, width, head_dim]."""
    cache = DynamicCache()
    example = next(layers for layers in found if layers)
    for layer_idx, (keys, values) in enumerate(example):
        pair = []
        for which, tensor in enumerate((keys, values)):
            padded = tensor.new_zeros(len(found), tensor.shape[0], width, tensor.shape[2])
            for row, layers in enumerate(found):
                if layers:
                    stored = layers[layer_idx][which]
                    padded[row, :, width - stored.shape[1] :] = stored
            pair.append(padded)
        cache.update(pair[0], pair[1], layer_idx)
    return cache


def _common_length(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> int:
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length


def _settle(done: "asyncio.Future[Any]", outcome: Any) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
