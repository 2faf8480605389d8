"""Generate for many callers at once in padded batches with a reused cache, meant for CPUs.

On a CPU this beats continuous batching, which gathers every cached page again for each token.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from collabllm.simulation.assistant.engines.base import STOPPED, OnIds, end_ids
from collabllm.simulation.assistant.engines.cpu_attention import use_grouped_attention
from collabllm.simulation.assistant.engines.prefix_store import Layers, PrefixStore, build_cache
from collabllm.simulation.assistant.engines.seeded_sampling import SeededSampling

logger = logging.getLogger(__name__)

# A batch starts when nobody new has come for this share of the last batch's time, within limits: a
# caller that just misses a batch would wait for all of it, and then run in a smaller one.
_QUIET_SHARE = 0.15
_QUIET_LIMITS_S = (0.03, 1.0)
_FIRST_QUIET_S = 0.3
_MAX_BATCH = 64

Outcome = tuple[list[int], bool] | Exception


@dataclass(eq=False)
class _Request:
    prompt_ids: list[int]
    max_new_tokens: int
    seed: int | None
    on_ids: OnIds | None
    temperature: float
    done: "asyncio.Future[tuple[list[int], bool]]"

    def settle(self, outcome: Outcome) -> None:
        """Hand the outcome to the caller's loop, from any thread; the loop may be gone."""
        self._call(_settle, self.done, outcome)

    def show(self, new_ids: torch.Tensor) -> None:
        """Hand on what has been written so far, from any thread."""
        if self.on_ids is not None and len(new_ids) <= self.max_new_tokens:
            self._call(self.on_ids, new_ids.tolist())

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):
            self.done.get_loop().call_soon_threadsafe(function, *args)


class _Watch(StoppingCriteria):
    """Shows each row of a batch as it is written, and ends those whose call was cancelled."""

    def __init__(self, batch: Sequence[_Request], width: int) -> None:
        self._batch, self._width = batch, width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return which rows end here, shape [rows]."""
        gone = [request.done.cancelled() for request in self._batch]
        for request, is_gone, ids in zip(self._batch, gone, input_ids, strict=True):
            if not is_gone:
                request.show(ids[self._width :])
        return torch.tensor(gone, device=input_ids.device)


class PaddedEngine:
    """Plain `generate` on left-padded batches of whoever waits; encodes only what is new."""

    def __init__(self, model: Any, tokenizer: Any, sampling: dict[str, Any]) -> None:
        self.prompt_tokens_encoded = 0
        self._model, self._sampling = model, dict(sampling)
        own = self._sampling.pop("temperature", 1.0)
        self._temperature = own if self._sampling.pop("do_sample") else 0.0
        use_grouped_attention(model)
        self._eos = end_ids(model, tokenizer)
        self._store = PrefixStore()
        self._waiting: list[_Request] = []
        self._changed = threading.Condition()
        self._running = threading.Lock()  # held while a batch uses the model
        self._quiet_s = _FIRST_QUIET_S
        self._closed = False
        # One thread for all batches: torch keeps a team of workers for every thread that calls it.
        self._thread = threading.Thread(target=self._serve, name="collabllm-padded", daemon=True)
        self._thread.start()

    async def generate(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        seed: int | None = None,
        on_ids: OnIds | None = None,
        temperature: float | None = None,
    ) -> tuple[list[int], bool]:
        """Wait for company until nobody else has come for a moment, then generate with it."""
        done = asyncio.get_running_loop().create_future()
        chosen = self._temperature if temperature is None else temperature
        request = _Request(prompt_ids, max_new_tokens, seed, on_ids, chosen, done)
        with self._changed:
            if self._closed or not self._thread.is_alive():  # a forked child has no such thread
                raise RuntimeError(STOPPED)
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
        """Serve waiting callers, one batch at a time; whoever still waits at the end is told."""
        batch: list[_Request] = []
        try:
            while batch := self._next_batch():
                started = time.perf_counter()
                with self._running:
                    outcomes = self._try_batch(batch)
                for request, outcome in zip(batch, outcomes, strict=True):
                    request.settle(outcome)
                shortest, longest = _QUIET_LIMITS_S
                share = _QUIET_SHARE * (time.perf_counter() - started)
                self._quiet_s = min(max(share, shortest), longest)
        finally:
            with self._changed:
                self._closed = True
                left, self._waiting = [*batch, *self._waiting], []
            for request in left:
                request.settle(RuntimeError(STOPPED))

    def _next_batch(self) -> list[_Request]:
        """Wait until there is a batch to start; empty when closed.

        Callers come in bursts, whenever a batch or a round of user turns ends:

            first caller ... more callers ...| quiet for _quiet_s | the batch starts
            each newcomer begins the quiet time anew; _MAX_BATCH of them start at once
        """
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

    def _try_batch(self, batch: Sequence[_Request]) -> list[Outcome]:
        """Generate for a batch; after a failure in halves, so that it meets only whom it must.

        Anything may fail in a forward pass (memory, a kernel, an id outside the vocabulary), and
        whatever it is, the other callers are waiting: all exceptions become outcomes.
        """
        try:
            return list(self._generate_batch(batch))
        except Exception as error:
            self._store.clear()
            if len(batch) > 1:
                middle = len(batch) // 2
                return self._try_batch(batch[:middle]) + self._try_batch(batch[middle:])
            logger.warning("The local engine failed.", exc_info=True)
            failure = RuntimeError(f"The local engine failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return [failure]

    def _generate_batch(self, batch: Sequence[_Request]) -> list[tuple[list[int], bool]]:
        """Generate for a batch, and store what it has computed.

        One column of the batch is one position of the key-value cache, so what rows have stored and
        what is new to them line up, each padded on the left:

            |<------ old_width ------>|<--------- new_width --------->|<-- longest -->|
            | padding | stored prefix | padding | rest of the prompt  | reply | end   |
        """
        found = [self._store.find(request.prompt_ids) for request in batch]
        ids, mask, old_width = self._lay_out([request.prompt_ids for request in batch], found)
        longest = max(request.max_new_tokens for request in batch)
        with torch.no_grad():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=build_cache(self._model, found, old_width, ids.shape[1] + longest),
                max_new_tokens=longest,
                eos_token_id=self._eos,
                pad_token_id=self._eos[0],
                return_dict_in_generate=True,
                do_sample=False,
                logits_processor=self._sampler(batch),
                stopping_criteria=StoppingCriteriaList([_Watch(batch, ids.shape[1])]),
            )
        replies = output.sequences[:, ids.shape[1] :].tolist()
        outcomes = [
            self._cut(new_ids[: request.max_new_tokens])
            for new_ids, request in zip(replies, batch, strict=True)
        ]
        self._store.add_rows(
            [r.prompt_ids + new for r, (new, _) in zip(batch, outcomes, strict=True)],
            mask.bool(),
            output.past_key_values,
        )
        return outcomes

    def _cut(self, new_ids: list[int]) -> tuple[list[int], bool]:
        """Return a reply up to its end token, and whether it has one."""
        end = next((idx for idx, token in enumerate(new_ids) if token in self._eos), None)
        return (new_ids, False) if end is None else (new_ids[: end + 1], True)

    def _lay_out(
        self, prompts: Sequence[list[int]], found: Sequence[Layers]
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Pad prompts on the left, their cached and their new part each.

        Returns:
            Ids and attention mask, shape [batch, old_width + new_width], and old_width.
        """
        cached = [layers[0][0].shape[1] if layers else 0 for layers in found]
        new_width = max(len(ids) - num for ids, num in zip(prompts, cached, strict=True))
        self.prompt_tokens_encoded += sum(map(len, prompts)) - sum(cached)
        rows: list[list[int]] = []
        mask: list[list[int]] = []
        for prompt, num in zip(prompts, cached, strict=True):
            num_new = len(prompt) - num
            old_pad, new_pad = [0] * (max(cached) - num), [0] * (new_width - num_new)
            rows.append(old_pad + prompt[:num] + new_pad + prompt[num:])
            mask.append(old_pad + [1] * num + new_pad + [1] * num_new)
        device = self._model.device
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device), max(cached)

    def _sampler(self, batch: Sequence[_Request]) -> LogitsProcessorList:
        temperatures = [request.temperature for request in batch]
        if not any(temperatures):
            return LogitsProcessorList()
        seeds = [request.seed for request in batch]
        device = self._model.device
        sampling = SeededSampling(seeds, temperatures=temperatures, device=device, **self._sampling)
        return LogitsProcessorList([sampling])

    def warmup(self) -> None:
        """Do nothing: no graphs are captured, and nothing is compiled."""

    def forget(self) -> None:
        """Drop all keys and values, after the batch under way: the weights have changed."""
        with self._running:
            self._store.clear()

    def close(self) -> None:
        """Stop after the batch under way, tell who still waits, and free the cache."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._store.clear()


def _settle(done: "asyncio.Future[Any]", outcome: Outcome) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
