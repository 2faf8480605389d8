"""Limits that all requests to a server share: tokens per minute, and pauses that it asks for."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WINDOW_S = 60.0
_POLL_S = 0.1
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_PAUSE_SPREAD = 0.25


class TokenLimiter:
    """Keeps requests of any moment within a number of tokens per minute.

    A request reserves the most it may take before it is sent; what it took instead counts for a
    minute from its end.

    Args:
        tokens_per_minute: The limit; None for no limit.
        now: The clock.
    """

    def __init__(
        self, tokens_per_minute: int | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = tokens_per_minute
        self._now = now
        self._reserved = 0
        self._spent = 0
        self._ended: deque[tuple[float, int]] = deque()

    async def reserve(self, tokens: int, turn: asyncio.Lock) -> int:
        """Wait until there is room, in order of arrival; return what is reserved.

        Args:
            tokens: Most that the request may take; more than the limit counts as the limit.
            turn: One for all callers of an event loop.
        """
        if not self._limit:
            return 0
        tokens = min(tokens, self._limit)
        async with turn:
            while self._in_window() + tokens > self._limit:
                await asyncio.sleep(_POLL_S)
            self._reserved += tokens
        return tokens

    def settle(self, reserved: int, taken: int) -> None:
        """Count what a request took in place of what it had reserved."""
        if self._limit:
            self._reserved -= reserved
            self._spent += taken
            self._ended.append((self._now(), taken))

    def _in_window(self) -> int:
        while self._ended and self._now() - self._ended[0][0] > _WINDOW_S:
            self._spent -= self._ended.popleft()[1]
        return self._spent + self._reserved


class SharedPause:
    """A pause that one answer asks for and all requests keep, so that none runs into it again."""

    def __init__(self) -> None:
        self._until = 0.0
        self._length_s = 0.0

    def extend(self, seconds: float) -> None:
        """Pause from now on, or longer than before."""
        until = time.monotonic() + seconds
        if until > self._until:
            self._until, self._length_s = until, seconds

    async def wait(self) -> None:
        """Wait to the end and a little longer, each caller by its own random part."""
        while (left := self._until - time.monotonic()) > 0:
            await asyncio.sleep(left + random.uniform(0, _PAUSE_SPREAD * self._length_s))


def most_tokens(request: Mapping[str, Any]) -> int:
    """Estimate the most that a request may take: its prompt by its bytes, and its longest reply."""
    longest = request.get("max_tokens") or request.get("max_completion_tokens") or 0
    return tokens_of_prompt(request) + int(longest)


def tokens_of_prompt(request: Mapping[str, Any]) -> int:
    """Estimate the tokens of a request's messages by their bytes."""
    messages: Sequence[Mapping[str, str]] = request["messages"]
    return sum(tokens_of_text(message["content"]) + _TOKENS_PER_MESSAGE for message in messages)


def tokens_of_text(text: str) -> int:
    """Estimate the tokens of a text by its bytes."""
    return len(text.encode(errors="replace")) // _BYTES_PER_TOKEN
