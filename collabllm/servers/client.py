"""The only place that calls an OpenAI-compatible server: retries, limits, usage, cache."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import httpx2

from collabllm.errors import ContextFullError, ServerError
from collabllm.messages import Message, to_chat
from collabllm.servers.cache import ResponseCache
from collabllm.servers.completion import Completion, UnreadableAnswerError
from collabllm.servers.connection import Connection, describe_failure
from collabllm.servers.failures import REPLACEMENTS, StatusError, backoff_s
from collabllm.servers.usage import UsageLedger

__all__ = ["Completion", "OpenAIClient", "shared_client"]

logger = logging.getLogger(__name__)

_PREFLIGHT_RETRIES = 2
_PREFLIGHT: list[Message] = [{"role": "user", "content": "Answer with the word OK."}]
_PREFLIGHT_TOKENS = 16


class OpenAIClient:
    """Calls one server; share it among all assistants, users and judges of a run.

    Args:
        base_url: Of an OpenAI-compatible server; OPENAI_BASE_URL or OpenAI's by default.
        api_key: OPENAI_API_KEY by default; local servers need none.
        max_concurrency: Most requests at once.
        tokens_per_minute: Most tokens a minute, by the server's count; None for no limit.
        max_retries: Tries after the first one; 14 of them outlast the restart of a server.
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
        max_retries: int = 14,
        timeout_s: float = 120.0,
        ledger: UsageLedger | None = None,
        cache: ResponseCache | None = None,
    ) -> None:
        self.ledger = ledger or UsageLedger()
        self.revisions: dict[str, str] = {}  # of adapters, by the server's name of them
        self.refused: dict[str, set[str]] = {}  # settings that a model does not take
        self._server = Connection(base_url, api_key, max_concurrency, tokens_per_minute)
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._cache = cache

    def __repr__(self) -> str:
        return f"OpenAIClient(base_url={self.address!r})"

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._server.base_url

    @property
    def address(self) -> str:
        """The server's address without a name and password in it."""
        return self._server.address

    async def complete(
        self,
        messages: Sequence[Message],
        model: str,
        *,
        role: str,
        keep_if: Callable[[Completion], bool] | None = None,
        **settings: Any,
    ) -> Completion:
        """Ask for one completion.

        Args:
            messages: The conversation; only role and content are sent.
            model: The server's name of the model.
            role: Who pays in the ledger: `assistant`, `user` or `judge`.
            keep_if: Says whether the cache may keep an answer, so that an unreadable one is asked
                for again when a run is repeated. Empty ones are never kept.
            **settings: Of the chat completions API, in its older names (`max_tokens`); the fields
                of `extra_body` are sent as they are.

        Raises:
            ServerError: If the server refuses, or fails on every try.
            ContextFullError: If the conversation is too long for the model.
            CostLimitError: If the ledger's limit is reached.
            ReplayMissError: If a replayed cache lacks the request.
            ValueError: If there is a cost limit and the model has no price.
        """
        extra = settings.pop("extra_body", None) or {}
        request = {"model": model, "messages": to_chat(messages), **settings, **extra}
        if self._cache is None:
            self.ledger.check_limit(model)
            return await self._send_with_retries(request, role, self._max_retries)
        identity = {
            "server": self.address,
            "adapter": self.revisions.get(model, ""),
            "request": request,
        }
        stored = self._cache.get(identity)
        if stored is not None:
            return Completion(**stored)
        self.ledger.check_limit(model)
        completion = await self._send_with_retries(request, role, self._max_retries)
        if completion.text.strip() and (keep_if is None or keep_if(completion)):
            self._cache.put(identity, vars(completion))
        return completion

    async def preflight(self, model: str, *, role: str) -> None:
        """Ask for one short answer, so that a run that cannot work ends before it begins.

        Raises:
            ServerError: With address and cause, if the server does not answer.
            ValueError: If there is a cost limit and the model has no price.
        """
        self.ledger.require_prices([model])
        if self._cache is not None and self._cache.mode == "replay":
            return
        request = {"model": model, "messages": _PREFLIGHT, "max_tokens": _PREFLIGHT_TOKENS}
        await self._send_with_retries(request, role, min(self._max_retries, _PREFLIGHT_RETRIES))

    async def post(self, path: str, content: Mapping[str, Any], timeout_s: float) -> str:
        """Send one request without retries, such as to load an adapter; return the answer's text.

        Raises:
            StatusError: If the server answers with an error status.
            ServerError: If there is no answer.
        """
        try:
            return await self._server.post(path, content, timeout_s)
        except (httpx2.HTTPError, TimeoutError) as error:
            failure = describe_failure(error, timeout_s)
            raise ServerError(f"{self.address}: {failure}.") from None

    async def _send_with_retries(
        self, request: dict[str, Any], role: str, max_retries: int
    ) -> Completion:
        model, failures = request["model"], 0
        while True:
            sent = self._adapt(request)
            pause_s = None
            try:
                completion = await self._server.complete(sent, self._timeout_s)
            except StatusError as error:
                if self._learn_refusal(sent, error):
                    continue
                if error.is_context_full:
                    raise ContextFullError("The server says that the context is full.") from None
                if not error.is_passing:
                    raise ServerError(
                        f"{self.address} refused the request ({error.label}).{error.hint(model)}"
                    ) from None
                failure, pause_s = describe_failure(error, self._timeout_s), error.retry_after_s
            except (httpx2.HTTPError, TimeoutError, UnreadableAnswerError) as error:
                failure = describe_failure(error, self._timeout_s)
            else:
                tokens = completion.prompt_tokens, completion.completion_tokens
                self.ledger.add(role, model, *tokens, self.address)
                return completion
            failures += 1
            if failures > max_retries:
                raise ServerError(f"{self.address} failed {failures} times; last: {failure}.")
            if pause_s is None:
                await asyncio.sleep(backoff_s(failures))
            else:
                self._server.pause.extend(pause_s)

    def _adapt(self, request: dict[str, Any]) -> dict[str, Any]:
        """Leave out or rename what this model has refused before."""
        adapted = dict(request)
        for name in self.refused.get(request["model"], ()):
            value = adapted.pop(name, None)
            replacement = REPLACEMENTS[name]
            if replacement and value is not None:
                adapted[replacement] = value
        return adapted

    def _learn_refusal(self, sent: Mapping[str, Any], error: StatusError) -> bool:
        """Remember the setting that the model does not take; True if it was among those sent."""
        name = error.refused_setting(sent)
        if name is None:
            return False
        refused = self.refused.setdefault(sent["model"], set())
        if name not in refused:
            refused.add(name)
            instead = REPLACEMENTS[name]
            logger.warning(
                "%s refuses %s; going on %s.",
                sent["model"],
                name,
                f"with {instead}" if instead else "without it",
            )
        return True


@lru_cache(maxsize=32)
def shared_client(base_url: str | None, api_key: str | None) -> OpenAIClient:
    """Return the one client of a server for everybody who does not bring a client."""
    return OpenAIClient(base_url, api_key)
