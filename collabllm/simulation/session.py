"""What all conversations of a run share, and both sides of them, built from settings."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from collabllm.event_loop import run
from collabllm.servers.cache import ResponseCache
from collabllm.servers.client import Address, OpenAIClient
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.assistant.registry import build_assistant
from collabllm.simulation.assistant.settings import AssistantSettings
from collabllm.simulation.settings import RunSettings, UserSettings
from collabllm.simulation.user_models.registry import UserFactory

_SQLITE = b"SQLite format 3\0"
_MIN_REQUESTS = 64  # at once and a server; a conversation may wait for several metrics


def _check_database(file: Path) -> None:
    """Refuse a file that is no cache before anything runs.

    Raises:
        ValueError: If the file is there, and is something else.
    """
    if file.is_file():
        with file.open("rb") as content:
            start = content.read(len(_SQLITE))
        if start and start != _SQLITE:
            raise ValueError(f"{file} is no cache of server answers; give another file.")


class Session:
    """What all conversations of a run share: ledger, cache, and one client a server.

    Args:
        settings: Settings of the run.
        stack: Closes what was opened.
    """

    def __init__(self, settings: RunSettings, stack: ExitStack) -> None:
        self.settings, self.stack = settings, stack
        self.ledger = UsageLedger(settings.max_cost, settings.prices)
        self._cache = None
        if settings.cache or settings.replay:
            file = settings.cache or settings.replay or ""
            _check_database(Path(file))
            self._cache = ResponseCache(file, "record" if settings.cache else "replay")
            stack.callback(self._cache.close)
        self._clients: dict[str | tuple[str, ...] | None, OpenAIClient] = {}
        self._tried: set[tuple[str, OpenAIClient]] = set()

    def client(self, base_url: Address) -> OpenAIClient:
        """Return the one client of a server, or of several with one model."""
        key = base_url if base_url is None or isinstance(base_url, str) else tuple(base_url)
        if key not in self._clients:
            self._clients[key] = OpenAIClient(key, **self.client_options())
        return self._clients[key]

    def client_options(self) -> dict[str, Any]:
        """Return what every client of the run is made with."""
        return {
            "max_concurrency": max(self.settings.concurrency, _MIN_REQUESTS),
            "tokens_per_minute": self.settings.tokens_per_minute,
            "timeout_s": self.settings.timeout_s,
            "max_retries": self.settings.max_retries,
            "ledger": self.ledger,
            "cache": self._cache,
        }

    def preflight(self, models: Sequence[tuple[str, Address, str]]) -> None:
        """Ask each server for one short answer, so that a run that cannot work never begins.

        A model that has answered before is not asked again.

        Args:
            models: Of each the server's name, the address or addresses, and who asks for it
                (`assistant`, `user` or `judge`).

        Raises:
            ServerError: With address and cause, if a server refuses or does not answer.
            ValueError: If there is a cost limit and a model has no price.
        """
        for model, base_url, role in models:
            client = self.client(base_url)
            if (model, client) not in self._tried:
                run(client.preflight(model, role=role))
                self._tried.add((model, client))

    def build_assistant(self, settings: AssistantSettings) -> Assistant:
        """Make the assistant; a local one loads its weights here."""
        return build_assistant(settings, self)

    def build_user_factory(self, settings: UserSettings) -> UserFactory:
        """Make the factory of users that the settings name."""
        return settings.to_user_spec().build_factory(self.client)
