"""An assistant spread over a Ray cluster: an engine a worker, a conversation on one of them."""

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collabllm.errors import ServerError
from collabllm.hub import looks_local
from collabllm.messages import Message
from collabllm.servers.pool import conversation_affinity, rank
from collabllm.simulation.assistant.base import Assistant, AssistantReply
from collabllm.simulation.assistant.ray_cluster import connection, divide, import_ray, last_line

logger = logging.getLogger(__name__)

_MAX_DEATHS = 5  # of workers for one reply, which may be what kills them
_POLL_S = 0.1
_PATIENCE_S = 30.0  # until it is said what the wait is for


class RayAssistant(Assistant):
    """Answers with local engines in the processes of a Ray cluster, one a GPU.

    The turns of a conversation go to one worker, whose prefix cache knows them. When a worker or
    its node dies, its conversations go on with others, Ray starts it again where there is room, and
    they come back to it.

    Args:
        model_path: As in `LocalAssistant`; a folder has to be there on every node.
        lora_path: A LoRA adapter, likewise.
        use_4bit: As in `LocalAssistant`.
        address: `HOST:PORT` of a cluster that this machine is a node of; `auto` is the one that
            runs here or that RAY_ADDRESS names, or else one of this machine, for as long as this
            assistant.
        num_workers: Engines; by default one a GPU, or one a node where there is none.
        start_timeout_s: Seconds until a worker has to be ready, at the start and later.
        engine: What each worker makes of the other arguments; `LocalAssistant` by default.
        **options: Further arguments of it.

    Raises:
        CollabLLMError: If Ray is not installed.
        ServerError: If there is no such cluster, or no worker is ready in time.
    """

    def __init__(
        self,
        model_path: str,
        lora_path: str | None = None,
        use_4bit: bool = False,
        *,
        address: str = "auto",
        num_workers: int | None = None,
        start_timeout_s: float = 900.0,
        engine: Callable[..., Assistant] | None = None,
        **options: Any,
    ) -> None:
        self.name = lora_path or model_path
        self._timeout_s = start_timeout_s
        self._ray = import_ray()
        from collabllm.models import load_tokenizer  # torch loads here
        from collabllm.simulation.assistant.local import LocalAssistant

        self._tokenizer: Any = load_tokenizer(model_path, adapter=lora_path)
        paths = [path and _as_seen_by_workers(path) for path in (model_path, lora_path)]
        self._workers: list[_Worker] = []
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(connection(self._ray, address))
        self._stack.callback(self._kill_workers)
        try:
            number, resources = divide(self._ray.nodes(), num_workers)
            actor = self._ray.remote(_Engine).options(
                max_restarts=-1, scheduling_strategy="SPREAD", **resources
            )
            for idx in range(number):
                handle = actor.remote(engine or LocalAssistant, *paths, use_4bit, **options)
                self._workers.append(_Worker(f"Ray worker {idx + 1} of {number}", handle))
            self._await_start()
        except BaseException:
            self.close()
            raise

    def _await_start(self) -> None:
        """Wait for the first worker, and as long again for the others.

        Raises:
            Exception: What a worker failed with, as an engine of this process would raise it.
        """
        started = time.monotonic()
        starts = [worker.ready for worker in self._workers]
        wait = concurrent.futures.wait
        patience_s = min(_PATIENCE_S, self._timeout_s)
        if not wait(starts, patience_s, return_when="FIRST_COMPLETED").done:
            logger.warning(
                "No Ray worker is ready after %g s: its model loads, or the cluster has no room "
                "(`ray status`). Waiting for up to %g s.",
                patience_s,
                self._timeout_s,
            )
            left_s = self._timeout_s - patience_s
            if not wait(starts, left_s, return_when="FIRST_COMPLETED").done:
                raise self._none_ready()
        done = wait(starts, time.monotonic() - started).done
        for start in done:
            if error := start.exception():
                raise self._cause(error) from error
        if len(done) < len(starts):
            logger.warning(
                "%d of %d Ray workers are ready; the others join when the cluster has room.",
                len(done),
                len(starts),
            )

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> AssistantReply:
        """Ask the conversation's worker; one that dies meanwhile only costs time."""
        errors = self._ray.exceptions
        for _ in range(_MAX_DEATHS):
            worker = await self._choose(conversation_affinity(messages))
            call = worker.actor.generate.remote(list(messages), seed)
            try:
                reply: AssistantReply = await call
                return reply
            except asyncio.CancelledError:
                with contextlib.suppress(errors.RayError):  # the connection may be closed
                    self._ray.cancel(call)
                raise
            except errors.RayTaskError as error:
                raise self._cause(error) from error
            except errors.RayError as error:  # the worker, its node, or the way to it
                worker.lost(error)
        raise ServerError(f"{_MAX_DEATHS} Ray workers died while they wrote one reply.")

    async def _choose(self, affinity: str) -> "_Worker":
        """Return the conversation's worker among those that are ready; wait until one is."""
        deadline = time.monotonic() + self._timeout_s
        while self._workers:
            ready = [worker for worker in self._workers if worker.is_ready()]
            if ready:
                return max(ready, key=lambda worker: rank(affinity, worker.name))
            if all(worker.ready.done() for worker in self._workers):
                raise self._cause(self._workers[0].ready.exception())
            if time.monotonic() > deadline:
                raise self._none_ready()
            await asyncio.sleep(_POLL_S)
        raise RuntimeError("The workers have stopped; make a new RayAssistant.")

    def _none_ready(self) -> ServerError:
        return ServerError(
            f"No Ray worker was ready within {self._timeout_s:g} s; `ray status` on the cluster "
            "says what is missing."
        )

    def _cause(self, error: BaseException | None) -> BaseException:
        """Return what an engine raised, in place of Ray's report of it."""
        if isinstance(error, self._ray.exceptions.RayTaskError):
            cause: BaseException = error.cause
            return cause
        return ServerError(f"A Ray worker cannot start: {last_line(error)}")

    def count_tokens(self, text: str) -> int:
        """Count by the model's tokenizer, here."""
        return len(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _kill_workers(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            self._ray.kill(worker.actor)

    def close(self) -> None:
        """Stop the workers, and the cluster where it was started here; again does nothing."""
        self._stack.close()

    def __enter__(self) -> "RayAssistant":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Worker:
    """One engine of the cluster, as seen from here."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name, self.actor = name, actor
        self._is_failure_told = False
        self._await()

    def _await(self) -> None:
        """Learn when the engine is there; Ray asks again for as long as it starts one."""
        call = self.actor.ready.options(max_task_retries=-1).remote()
        self.ready: concurrent.futures.Future[None] = call.future()

    def is_ready(self) -> bool:
        """Whether the engine is there, as far as is known."""
        error = self.ready.exception() if self.ready.done() else None
        if error and not self._is_failure_told:
            self._is_failure_told = True
            logger.warning("%s cannot start again: %s", self.name, last_line(error))
        return self.ready.done() and error is None

    def lost(self, error: Exception) -> None:
        """Take the worker out until Ray has started it again; its calls fail one after another."""
        if self.ready.done():
            logger.warning(
                "%s is gone, and others go on for it until it is back: %s",
                self.name,
                last_line(error),
            )
            self._await()


class _Engine:
    """Runs in a process of the cluster: makes the engine, and hands calls on to it."""

    def __init__(self, make: Callable[..., Assistant], *arguments: Any, **options: Any) -> None:
        self.failure: Exception | None = None
        try:
            self.assistant = make(*arguments, **options)
        except Exception as error:  # for `ready` to raise: Ray would only tell of a dead actor
            self.failure = error

    async def ready(self) -> None:
        if self.failure:
            raise self.failure

    async def generate(self, messages: Sequence[Message], seed: int | None) -> AssistantReply:
        return await self.assistant.agenerate(messages, seed=seed)


def _as_seen_by_workers(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if looks_local(path) else path
