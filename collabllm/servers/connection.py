"""The connection to one server: its slots, its limit of tokens, its pauses, one request."""

import asyncio
import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2

from collabllm.servers.completion import Completion, read_completion
from collabllm.servers.failures import StatusError
from collabllm.servers.limits import (
    SharedPause,
    TokenLimiter,
    most_tokens,
    tokens_of_prompt,
    tokens_of_text,
)
from collabllm.servers.streaming import OnCompletion, read_stream

logger = logging.getLogger(__name__)

_OPENAI_URL = "https://api.openai.com/v1"
_CONNECT_TIMEOUT_S = 30.0


class Connection:
    """Sends single requests to one server, from any event loop.

    Args:
        base_url: As in `OpenAIClient`.
        api_key: As in `OpenAIClient`.
        max_concurrency: Most requests at once.
        tokens_per_minute: Most tokens per minute; None for no limit.

    Raises:
        ValueError: If no request can carry the key.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        max_concurrency: int,
        tokens_per_minute: int | None,
    ) -> None:
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI_URL).rstrip("/")
        self.pause = SharedPause()
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                "The API key has a letter or a line break that no request can carry; set "
                "OPENAI_API_KEY anew."
            )
        self._api_key = key or "no-key"
        self._max_concurrency = max_concurrency
        self._limiter = TokenLimiter(tokens_per_minute)
        self._estimates = False
        # Sockets and locks belong to one event loop.
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def address(self) -> str:
        """The server's address without a name and password in it."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    async def complete(
        self,
        request: Mapping[str, Any],
        timeout_s: float,
        on_send: Callable[[], None],
        on_completion: OnCompletion | None = None,
    ) -> Completion:
        """Ask for a completion when there is a slot, no pause, and room for the tokens.

        Args:
            request: What is sent, with the fields of `STREAM` where `on_completion` is given.
            timeout_s: Seconds that the whole answer may take from then on.
            on_send: Called right before the request leaves.
            on_completion: Called with what has come so far, whenever there is more.

        Raises:
            StatusError: If the server answers with an error status.
            UnreadableAnswerError: If the answer is not a completion.
            httpx2.HTTPError: If there is no answer.
            TimeoutError: If there is none in time.
        """
        pool = self._pool()
        async with pool.slots:
            await self.pause.wait()
            reserved = await self._limiter.reserve(most_tokens(request), pool.turn)
            taken = reserved  # what a request without an answer took is not known
            try:
                on_send()
                if on_completion is None:
                    answer = await self.post("/chat/completions", request, timeout_s)
                    completion = read_completion(answer, request)
                else:
                    completion = await self._stream(request, timeout_s, on_completion)
                completion = self._count_untold(completion, request)
                taken = completion.prompt_tokens + completion.completion_tokens
            except StatusError:
                taken = 0
                raise
            finally:
                self._limiter.settle(reserved, taken)
        return completion

    def _count_untold(self, completion: Completion, request: Mapping[str, Any]) -> Completion:
        """Estimate the tokens that a server does not tell; warn the first time."""
        prompt = completion.prompt_tokens or tokens_of_prompt(request)
        written = tokens_of_text(completion.reasoning + completion.text)
        whole = replace(
            completion,
            prompt_tokens=prompt,
            completion_tokens=completion.completion_tokens or written,
        )
        if whole != completion and not self._estimates:
            self._estimates = True
            logger.warning(
                "%s does not tell how many tokens it used (usage); they are estimated from the "
                "texts, at four bytes each.",
                self.address,
            )
        return whole

    async def _stream(
        self, request: Mapping[str, Any], timeout_s: float, on_completion: OnCompletion
    ) -> Completion:
        """Read an answer as it comes; one of a server that does not stream comes at once."""
        url, content = f"{self.base_url}/chat/completions", _to_json(request)
        async with (
            asyncio.timeout(timeout_s),
            self._pool().http.stream("POST", url, content=content) as answer,
        ):
            streams = answer.headers.get("content-type", "").startswith("text/event-stream")
            if answer.status_code < 400 and streams:
                return await read_stream(answer.aiter_lines(), request, on_completion)
            await answer.aread()
        if answer.status_code >= 400:
            raise StatusError(answer.status_code, answer.headers, answer.text)
        return read_completion(answer.text, request)

    async def post(self, path: str, content: Mapping[str, Any], timeout_s: float) -> str:
        """Send one request at once; return the answer's text. Raises as `complete` does."""
        async with asyncio.timeout(timeout_s):
            answer = await self._pool().http.post(self.base_url + path, content=_to_json(content))
        if answer.status_code >= 400:
            raise StatusError(answer.status_code, answer.headers, answer.text)
        return answer.text

    def _pool(self) -> "_Pool":
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            headers = {
                "authorization": f"Bearer {self._api_key}",
                "content-type": "application/json",
            }
            http = httpx2.AsyncClient(
                headers=headers,
                timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
                limits=httpx2.Limits(max_keepalive_connections=self._max_concurrency),
                follow_redirects=True,
            )
            slots = asyncio.Semaphore(self._max_concurrency)
            self._pools[loop] = _Pool(http, slots, asyncio.Lock())
        return self._pools[loop]


def _to_json(content: Mapping[str, Any]) -> bytes:
    """Escape all letters, so that a lone surrogate in a text cannot fail here."""
    return json.dumps(content, separators=(",", ":")).encode()


@dataclass(frozen=True)
class _Pool:
    """What the requests of one event loop share."""

    http: httpx2.AsyncClient
    slots: asyncio.Semaphore
    turn: asyncio.Lock


def describe_failure(error: Exception, timeout_s: float) -> str:
    """Say in a few words why a request failed, without anything that was sent."""
    if isinstance(error, StatusError):
        return f"status {error.label}"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, httpx2.LocalProtocolError) or not str(error):  # that one quotes headers
        return type(error).__name__
    return f"{type(error).__name__} ({error})"
