"""The only place that calls an OpenAI-compatible server: retries, limits, usage, cache."""

import asyncio
import logging
import os
import random
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from json import JSONDecodeError
from typing import Any, cast

import openai
from openai import AsyncOpenAI

from collabllm.errors import ContextFullError, ServerError
from collabllm.messages import Message, to_chat
from collabllm.servers.cache import ResponseCache
from collabllm.servers.usage import UsageLedger

logger = logging.getLogger(__name__)

_MAX_WAIT_S = 60.0
_RETRIED_STATUSES = (408, 409, 425, 429)
_UNREADABLE = (openai.APIConnectionError, openai.APIResponseValidationError, JSONDecodeError)
# What a server may refuse, and what to send instead: None leaves the setting out.
_REPLACEMENTS: dict[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "temperature": None,
    "seed": None,
    "response_format": None,
}


@dataclass(frozen=True)
class Completion:
    """One answer of a server."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


class OpenAIClient:
    """Calls one server; share it among all assistants, users and judges of a run.

    Args:
        base_url: Of an OpenAI-compatible server; OPENAI_BASE_URL or OpenAI's by default.
        api_key: OPENAI_API_KEY by default; local servers need none.
        max_concurrency: Most requests at once.
        tokens_per_minute: Most tokens a minute, by the server's count; None for no limit.
        max_retries: Tries after the first one.
        timeout_s: Seconds until a request counts as failed.
        ledger: Counts tokens and cost; a new one by default.
        cache: Records or replays answers; none by default.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        max_concurrency: int = 64,
        tokens_per_minute: int | None = None,
        max_retries: int = 6,
        timeout_s: float = 120.0,
        ledger: UsageLedger | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        self.base_url = base_url
        self.ledger = ledger or UsageLedger()
        self._api_key = api_key or os.environ.get("OPENAI_API_KEY") or "no-key"
        self._max_concurrency = max_concurrency
        self._limiter = _TokenLimiter(tokens_per_minute)
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._cache = cache
        self._refused: dict[str, set[str]] = {}
        # A connection pool and its lock belong to one event loop.
        self._pools: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[AsyncOpenAI, asyncio.Semaphore]
        ] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIClient(base_url={self.base_url!r})"

    def authorization(self) -> dict[str, str]:
        """Return the header that names this client to the server."""
        return {"authorization": f"Bearer {self._api_key}"}

    async def complete(
        self, messages: Sequence[Message], model: str, *, role: str, **settings: Any
    ) -> Completion:
        """Ask for one completion.

        Args:
            messages: The conversation; only role and content are sent.
            model: The server's name of the model.
            role: Who pays in the ledger: `assistant`, `user` or `judge`.
            **settings: Of the chat completions API, in its older names (`max_tokens`).

        Raises:
            ServerError: If the server refuses, or fails on every try.
            ContextFullError: If the conversation is too long for the model.
            CostLimitError: If the ledger's limit is reached.
            ReplayMissError: If a replayed cache lacks the request.
        """
        request = {"model": model, "messages": to_chat(messages), **settings}
        if self._cache:
            stored = self._cache.get(request)
            if stored is not None:
                return Completion(**stored)
        self.ledger.check_limit()
        completion = await self._send_with_retries(request, role)
        if self._cache:
            self._cache.put(request, vars(completion))
        return completion

    async def _send_with_retries(self, request: dict[str, Any], role: str) -> Completion:
        _, slots = self._pool()
        for attempt in range(self._max_retries + 1):
            try:
                async with slots:
                    await self._limiter.wait()
                    return await self._send(request, role)
            except openai.APIStatusError as error:
                if self._learn_refusal(request["model"], error):
                    continue
                if _says_context_full(error):
                    raise ContextFullError("The server says that the context is full.") from None
                status = error.status_code
                if status < 500 and status not in _RETRIED_STATUSES:
                    raise ServerError(f"The server refused the request ({status}).") from None
                failure, pause = f"status {status}", _retry_after(error)
            except openai.APITimeoutError:
                failure, pause = f"no answer within {self._timeout_s:g} s", None
            except (
                openai.APIConnectionError,
                openai.APIResponseValidationError,
                JSONDecodeError,
            ) as error:
                failure, pause = type(error).__name__, None
            if attempt < self._max_retries:
                await asyncio.sleep(_backoff(attempt) if pause is None else pause)
        raise ServerError(f"The server failed {self._max_retries + 1} times; last: {failure}.")

    async def _send(self, request: dict[str, Any], role: str) -> Completion:
        client, _ = self._pool()
        answer = await client.chat.completions.create(**self._adapt(request))
        if not answer.choices:
            raise openai.APIConnectionError(message="no choices", request=cast(Any, None))
        choice, usage = answer.choices[0], answer.usage
        prompt_tokens = usage.prompt_tokens if usage else 0
        completion_tokens = usage.completion_tokens if usage else 0
        self.ledger.add(role, request["model"], prompt_tokens, completion_tokens)
        self._limiter.spend(prompt_tokens + completion_tokens)
        return Completion(
            choice.message.content or "",
            prompt_tokens,
            completion_tokens,
            choice.finish_reason or "stop",
        )

    def _adapt(self, request: dict[str, Any]) -> dict[str, Any]:
        """Leave out or rename what this model has refused before."""
        adapted = dict(request)
        for name in self._refused.get(request["model"], ()):
            value = adapted.pop(name, None)
            replacement = _REPLACEMENTS[name]
            if replacement and value is not None:
                adapted[replacement] = value
        return adapted

    def _learn_refusal(self, model: str, error: openai.APIStatusError) -> bool:
        """Remember the setting that a 400 answer complains about; True if it is a new one."""
        if error.status_code not in (400, 422):
            return False
        refused = self._refused.setdefault(model, set())
        text = str(error.body)
        for name in _REPLACEMENTS:
            if name in text and name not in refused:
                refused.add(name)
                logger.info("%s refuses %s; going on without it.", model, name)
                return True
        return False

    def _pool(self) -> tuple[AsyncOpenAI, asyncio.Semaphore]:
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            client = AsyncOpenAI(
                base_url=self.base_url,
                api_key=self._api_key,
                max_retries=0,
                timeout=self._timeout_s,
            )
            self._pools[loop] = (client, asyncio.Semaphore(self._max_concurrency))
        return self._pools[loop]


@lru_cache(maxsize=32)
def shared_client(base_url: str | None, api_key: str | None) -> OpenAIClient:
    """Return the one client of a server for everybody who does not bring a client."""
    return OpenAIClient(base_url, api_key)


def _backoff(attempt: int) -> float:
    """Seconds to wait: doubling from half a second, with full jitter."""
    return random.uniform(0.1, min(_MAX_WAIT_S, 0.5 * 2**attempt))


def _retry_after(error: openai.APIStatusError) -> float | None:
    value = error.response.headers.get("retry-after")
    try:
        return None if value is None else min(max(float(value), 0.0), _MAX_WAIT_S)
    except ValueError:
        return None


def _says_context_full(error: openai.APIStatusError) -> bool:
    """Recognise OpenAI's error code, and the words that vLLM, SGLang and llama.cpp use."""
    text = str(error.body).lower()
    return error.status_code == 400 and (
        "context_length_exceeded" in text
        or "maximum context length" in text
        or "exceeds the available context" in text
        or "longer than the model's context" in text
    )


class _TokenLimiter:
    """Hold requests back while the tokens of the last minute exceed the limit."""

    def __init__(
        self, tokens_per_minute: int | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = tokens_per_minute
        self._now = now
        self._spent: deque[tuple[float, int]] = deque()

    def spend(self, tokens: int) -> None:
        if self._limit:
            self._spent.append((self._now(), tokens))

    async def wait(self) -> None:
        while self._limit:
            while self._spent and self._now() - self._spent[0][0] > 60:
                self._spent.popleft()
            if sum(tokens for _, tokens in self._spent) < self._limit:
                return
            await asyncio.sleep(max(0.05, 60 - (self._now() - self._spent[0][0])))
