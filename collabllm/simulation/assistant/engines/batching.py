"""Generation in batches of whoever waits: the queue, its thread, and what a failure does."""

import asyncio
import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from collabllm.simulation.assistant.engines.base import STOPPED, OnIds

logger = logging.getLogger(__name__)

# A batch starts when nobody new has come for this share of the last batch's time, within limits: a
# caller that just misses a batch would wait for all of it, and then run in a smaller one.
_QUIET_SHARE = 0.15
_QUIET_LIMITS_S = (0.03, 1.0)
_FIRST_QUIET_S = 0.3

Outcome = tuple[list[int], bool] | Exception


@dataclass(eq=False)
class Request:
    """One caller's prompt, and where its reply goes."""

    prompt_ids: list[int]
    max_new_tokens: int
    seed: int | None
    on_ids: OnIds | None
    temperature: float
    earlier: Sequence[list[int]]
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


class BatchingEngine(ABC):
    """Collects callers into batches, which a class of this kind generates for.

    Args:
        temperature: Of a call that names none; 0 takes the likeliest tokens.
        end_token_ids: What ends a reply.
    """

    max_batch = 64

    def __init__(self, temperature: float, end_token_ids: Sequence[int]) -> None:
        self._temperature, self._eos = temperature, list(end_token_ids)
        self._waiting: list[Request] = []
        self._changed = threading.Condition()
        self._running = threading.Lock()  # held while a batch uses the model
        self._quiet_s = _FIRST_QUIET_S
        self._closed = False
        # One thread for all batches: torch keeps a team of workers for every thread that calls it.
        self._thread = threading.Thread(target=self._serve, name="collabllm-batches", daemon=True)
        self._thread.start()

    @abstractmethod
    def _generate_batch(self, batch: Sequence[Request]) -> list[tuple[list[int], bool]]:
        """Generate for a batch: new ids up to an end token, and whether there was one."""

    @abstractmethod
    def _clear(self) -> None:
        """Drop what earlier batches have computed."""

    def forget(self) -> None:
        """Drop what was computed, after the batch under way: the weights have changed."""
        with self._running:
            self._clear()

    async def generate(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        seed: int | None = None,
        on_ids: OnIds | None = None,
        temperature: float | None = None,
        earlier: Sequence[list[int]] = (),
    ) -> tuple[list[int], bool]:
        """Wait for company until nobody else has come for a moment, then generate with it."""
        done = asyncio.get_running_loop().create_future()
        chosen = self._temperature if temperature is None else temperature
        request = Request(prompt_ids, max_new_tokens, seed, on_ids, chosen, earlier, done)
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
        batch: list[Request] = []
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

    def _next_batch(self) -> list[Request]:
        """Wait until there is a batch to start; empty when closed.

        Callers come in bursts, whenever a batch or a round of user turns ends:

            first caller ... more callers ...| quiet for _quiet_s | the batch starts
            each newcomer begins the quiet time anew; max_batch of them start at once
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            num_waiting = 0
            while num_waiting != len(self._waiting) < self.max_batch and not self._closed:
                num_waiting = len(self._waiting)
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self.max_batch or self._closed, self._quiet_s
                )
            if self._closed:
                return []
            batch = self._waiting[: self.max_batch]
            self._waiting = self._waiting[self.max_batch :]
        return batch or self._next_batch()  # all of them may have been cancelled

    def _try_batch(self, batch: Sequence[Request]) -> list[Outcome]:
        """Generate for a batch; after a failure in halves, so that it meets only whom it must.

        Anything may fail in a forward pass (memory, a kernel, an id outside the vocabulary), and
        whatever it is, the other callers are waiting: all exceptions become outcomes.
        """
        try:
            return list(self._generate_batch(batch))
        except Exception as error:
            self._clear()
            if len(batch) > 1:
                middle = len(batch) // 2
                return self._try_batch(batch[:middle]) + self._try_batch(batch[middle:])
            logger.warning("The local engine failed.", exc_info=True)
            failure = RuntimeError(f"The local engine failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return [failure]

    def _cut(self, new_ids: list[int]) -> tuple[list[int], bool]:
        """Return a reply up to its end token, and whether it has one."""
        end = next((idx for idx, token in enumerate(new_ids) if token in self._eos), None)
        return (new_ids, False) if end is None else (new_ids[: end + 1], True)

    def warmup(self) -> None:  # noqa: B027
        """Do nothing: no graphs are captured, and nothing is compiled."""

    def close(self) -> None:
        """Stop after the batch under way, tell who still waits, and free the cache."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._clear()


def _settle(done: "asyncio.Future[Any]", outcome: Outcome) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
