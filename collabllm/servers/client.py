"""The only place that calls an OpenAI-compatible server: retries, limits, usage, cache."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import httpx2

from collabllm.errors import ContextFullError, ServerError
from collabllm.messages import Message, to_chat
from collabllm.servers.adapters import ServedAdapters
from collabllm.servers.cache import ResponseCache
from collabllm.servers.completion import Completion, UnreadableAnswerError
from collabllm.servers.connection import Connection, describe_failure
from collabllm.servers.failures import StatusError, backoff_s
from collabllm.servers.pool import ServerPool, conversation_affinity
from collabllm.servers.refusals import RefusedSettings
from collabllm.servers.streaming import STREAM, OnCompletion
from collabllm.servers.usage import UsageLedger

__all__ = ["Address", "Completion", "OpenAIClient", "shared_client"]

Address = str | Sequence[str] | None
"""Address of a server, or of several with one model; None is OPENAI_BASE_URL or OpenAI's."""

logger = logging.getLogger(__name__)

_PREFLIGHT_RETRIES = 2
_PREFLIGHT: list[Message] = [{"role": "user", "content": "Answer with the word OK."}]
_PREFLIGHT_TOKENS = 16


class OpenAIClient:
    """Calls one server, or several of one model; share it among all roles of a run.

    Args:
        base_url: Address of an OpenAI-compatible server; OPENAI_BASE_URL or OpenAI's by
            default. With several, each conversation keeps to one, and those that fail are left
            out for a while.
        api_key: OPENAI_API_KEY by default; local servers need none.
        max_concurrency: Most requests at once, for each server.
        tokens_per_minute: Most tokens per minute of each server, by its count; None for no limit.
        max_retries: Tries after the first one; 14 of them outlast the restart of a server.
        timeout_s: Seconds until a request counts as failed.
        ledger: Counts tokens and cost; a new one by default.
        cache: Records or replays answers; none by default.
        check: Called after each failed try; raises where no other try can succeed.
    """

    def __init__(
        self,
        base_url: Address = None,
        api_key: str | None = None,
        *,
        max_concurrency: int = 64,
        tokens_per_minute: int | None = None,
        max_retries: int = 14,
        timeout_s: float = 120.0,
        ledger: UsageLedger | None = None,
        cache: ResponseCache | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.ledger = ledger or UsageLedger()
        self.adapters = ServedAdapters()
        self._refused = RefusedSettings()
        urls = [base_url] if base_url is None or isinstance(base_url, str) else list(base_url)
        if not urls or len(set(urls)) < len(urls):
            raise ValueError(f"base_url needs one address or several different ones, got {urls}.")
        self._pool = ServerPool(
            [Connection(url, api_key, max_concurrency, tokens_per_minute) for url in urls]
        )
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._cache = cache
        self._check = check

    def __repr__(self) -> str:
        return f"OpenAIClient(base_url={self.address!r})"

    @property
    def address(self) -> str:
        """The server's address, or all of them, without names and passwords."""
        return ", ".join(sorted(server.address for server in self._pool.servers))

    @property
    def refused(self) -> Mapping[str, set[str]]:
        """Settings that were left out or renamed, by model."""
        return self._refused.by_model

    async def complete(
        self,
        messages: Sequence[Message],
        model: str,
        *,
        role: str,
        keep_if: Callable[[Completion], bool] | None = None,
        affinity: str | None = None,
        on_completion: OnCompletion | None = None,
        sample: int | None = None,
        **settings: Any,
    ) -> Completion:
        """Ask for one completion.

        Args:
            messages: The conversation; only role and content are sent.
            model: The server's name of the model.
            role: Who pays in the ledger: `assistant`, `user` or `judge`.
            keep_if: Says whether an answer from the cache will do; an unreadable or empty one is
                asked for again when a run is repeated, and stays for a replay.
            affinity: With several servers, requests of one affinity go to one; by default those
                whose conversation begins alike.
            on_completion: Called with what has come so far, whenever there is more; after a
                failure that passes it begins anew.
            sample: Tells apart, in the cache alone, requests that are the same for the server.
            **settings: Of the chat completions API, in its older names (`max_tokens`); the fields
                of `extra_body` are sent as they are.

        Raises:
            ServerError: If the server refuses, fails on every try, or `check` says that it is gone.
            ContextFullError: If the conversation is too long for the model.
            CostLimitError: If the ledger's limit is reached.
            ReplayMissError: If a replayed cache lacks the request.
            ValueError: If there is a cost limit and the model has no price.
        """
        extra = settings.pop("extra_body", None) or {}
        request = {"model": model, "messages": to_chat(messages), **settings, **extra}
        if affinity is None:
            affinity = conversation_affinity(request["messages"])
        if self._cache is None:
            self.ledger.check_limit(model)
            return await self._send_with_retries(request, role, affinity, on_completion)
        identity = {
            "server": self.address,
            "adapter": self.adapters.revisions.get(model, ""),
            "request": request,
            **({} if sample is None else {"sample": sample}),
        }
        stored = self._cache.get(identity)
        if stored is not None:
            return Completion(**stored)
        self.ledger.check_limit(model)
        completion = await self._send_with_retries(request, role, affinity, on_completion)
        is_good = bool(completion.text.strip()) and (keep_if is None or keep_if(completion))
        self._cache.put(identity, vars(completion), is_useless=not is_good)
        return completion

    async def preflight(self, model: str, *, role: str) -> None:
        """Ask for one short answer, so that a run that cannot work ends before it begins.

        Raises:
            ServerError: With address and cause, if no server answers; one of several may fail.
            ValueError: If there is a cost limit and the model has no price.
        """
        self.ledger.require_prices([model])
        if self._cache is not None and self._cache.mode == "replay":
            return
        request = {"model": model, "messages": _PREFLIGHT, "max_tokens": _PREFLIGHT_TOKENS}
        failures = {}
        for server in self._pool.servers:
            try:
                await self._send_with_retries(request, role, "", only=ServerPool([server]))
            except ServerError as error:
                failures[server] = error
        if len(failures) == len(self._pool.servers):
            raise next(iter(failures.values()))
        for server, failure in failures.items():
            logger.warning("Going on without a server: %s", failure)
            self._pool.leave_out(server)

    async def load_lora(self, name: str, path: str, timeout_s: float) -> None:
        """Load an adapter into each server, and again into one that loses it by a restart.

        Raises:
            ServerError: If a server refuses, or none answers.
        """
        await self.adapters.load(self._pool.servers, name, path, timeout_s)

    async def _send_with_retries(
        self,
        request: dict[str, Any],
        role: str,
        affinity: str,
        on_completion: OnCompletion | None = None,
        only: ServerPool | None = None,
    ) -> Completion:
        """Send a request until it is answered; `only` is for a preflight, with few retries."""
        pool = only or self._pool
        max_retries = min(self._max_retries, _PREFLIGHT_RETRIES) if only else self._max_retries
        request = {**request, **(STREAM if on_completion else {})}
        failures, without_format = 0, False
        while True:
            server, sent, is_up = pool.choose(affinity), self._refused.adapt(request), False
            try:
                completion = await self._send(server, sent, role, on_completion)
            except StatusError as error:
                if self._refused.learn(sent, error):
                    continue
                if error.may_refuse_format(sent):
                    del request["response_format"]  # one try tells whether it was that
                    without_format = True
                    continue
                if not await self.adapters.restore(server, request["model"], error):
                    _raise_if_lasting(error, server.address, request["model"])
                failure, pause_s = describe_failure(error, self._timeout_s), error.retry_after_s
                if pause_s is not None:
                    server.pause.extend(pause_s)
                    is_up = error.status < 500
            except (httpx2.HTTPError, TimeoutError, UnreadableAnswerError) as error:
                failure = describe_failure(error, self._timeout_s)
            else:
                pool.succeeded(server)
                if without_format:
                    self._refused.add(request["model"], "response_format")
                return completion
            self._check()
            failures += 1
            if failures > max_retries:
                raise ServerError(f"{server.address} failed {failures} times; last: {failure}.")
            if not is_up:
                pool.failed(server)
            if not pool.has_other(server):
                await asyncio.sleep(backoff_s(failures))

    async def _send(
        self,
        server: Connection,
        request: dict[str, Any],
        role: str,
        on_completion: OnCompletion | None,
    ) -> Completion:
        """Send a request once; from the moment it leaves, the ledger knows of it."""
        who = role, str(request["model"]), server.address
        on_send = partial(self.ledger.count_sent, *who)
        try:
            completion = await server.complete(request, self._timeout_s, on_send, on_completion)
        except (StatusError, httpx2.ConnectError, httpx2.ConnectTimeout):
            self.ledger.count_refused(*who)
            raise
        tokens = completion.prompt_tokens, completion.completion_tokens
        self.ledger.count_answered(*who, *tokens)
        return completion


def _raise_if_lasting(error: StatusError, address: str, model: str) -> None:
    if error.is_context_full:
        raise ContextFullError("The server says that the context is full.") from None
    if not error.is_passing:
        text = f"{address} refused the request ({error.label}).{error.hint(model)}"
        raise ServerError(text) from None


def shared_client(base_url: str | None, api_key: str | None) -> OpenAIClient:
    """Return the one client of a server and key for everybody who does not bring a client.

    The variables count as they are now: a key that was set later in a notebook is used.
    """
    return _shared_client(
        base_url or os.environ.get("OPENAI_BASE_URL"),
        api_key or os.environ.get("OPENAI_API_KEY"),
    )


@lru_cache(maxsize=32)
def _shared_client(base_url: str | None, api_key: str | None) -> OpenAIClient:
    return OpenAIClient(base_url, api_key)
