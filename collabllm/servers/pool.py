"""Several servers of one model: a conversation stays with its server as long as that answers."""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from collabllm.servers.connection import Connection

logger = logging.getLogger(__name__)

_FAILURES_UNTIL_OUT = 2
_OUT_S = 10.0


class ServerPool:
    """Chooses the server of each request, leaves dead ones out, and takes them back.

    Args:
        servers: At least one.
        now: The clock.
    """

    def __init__(
        self, servers: Sequence[Connection], now: Callable[[], float] = time.monotonic
    ) -> None:
        self.servers = list(servers)
        self._now = now
        self._failures = dict.fromkeys(self.servers, 0)
        self._out_until = dict.fromkeys(self.servers, 0.0)

    def choose(self, affinity: str) -> Connection:
        """Return the server for a request.

        Requests of one affinity go to one server, so that its prefix cache knows their beginning;
        when that server is out, only its own requests move. After a while one request tries it
        again.

        Args:
            affinity: The same text for all requests of a conversation.
        """
        if len(self.servers) == 1:
            return self.servers[0]
        now = self._now()
        ready = [server for server in self.servers if self._out_until[server] <= now]
        if not ready:
            return min(self.servers, key=self._out_until.__getitem__)
        # Rendezvous hashing: https://en.wikipedia.org/wiki/Rendezvous_hashing
        chosen = max(ready, key=lambda server: rank(affinity, server.address))
        if self._failures[chosen] >= _FAILURES_UNTIL_OUT:
            self._out_until[chosen] = now + _OUT_S  # the others wait for this one's end
        return chosen

    def succeeded(self, server: Connection) -> None:
        """Take a server back."""
        if self._failures[server] >= _FAILURES_UNTIL_OUT and len(self.servers) > 1:
            logger.warning("%s answers again.", server.address)
        self._failures[server], self._out_until[server] = 0, 0.0

    def failed(self, server: Connection) -> None:
        """Count a failure that may pass; the second in a row leaves the server out for a while."""
        self._failures[server] += 1
        if self._failures[server] >= _FAILURES_UNTIL_OUT:
            if self._failures[server] == _FAILURES_UNTIL_OUT and len(self.servers) > 1:
                logger.warning("%s does not answer; going on without it.", server.address)
            self._out_until[server] = self._now() + _OUT_S

    def leave_out(self, server: Connection) -> None:
        """Leave a server out for a while, as after failures in a row."""
        self._failures[server] = _FAILURES_UNTIL_OUT
        self._out_until[server] = self._now() + _OUT_S

    def has_other(self, server: Connection) -> bool:
        """Whether a server is out and another is not, so that a retry need not wait."""
        now = self._now()
        return self._out_until[server] > now and any(
            until <= now for until in self._out_until.values()
        )


def conversation_affinity(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what all turns of a conversation share: its first message that is no system prompt."""
    return next((m["content"] for m in messages if m["role"] != "system"), "")


def rank(affinity: str, address: str) -> bytes:
    """Return how well an address suits an affinity: the greatest is its own."""
    return hashlib.sha256(f"{affinity}\x1f{address}".encode(errors="replace")).digest()
