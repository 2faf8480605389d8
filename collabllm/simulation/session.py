"""What all conversations of a run share, and both sides of them, built from settings."""

from contextlib import ExitStack

from collabllm.servers.cache import ResponseCache
from collabllm.servers.client import OpenAIClient
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.assistant import Assistant, OpenAIAssistant
from collabllm.simulation.batch import UserFactory
from collabllm.simulation.settings import AssistantSettings, RunSettings, UserSettings
from collabllm.simulation.user_models import OpenAIUserModel, UserModel
from collabllm.simulation.user_models.personas import Persona
from collabllm.simulation.user_models.rule_based import RuleBasedUser
from collabllm.tasks import Task

_MIN_REQUESTS = 64  # at once and a server; a conversation may wait for several metrics


class Session:
    """What all conversations of a run share: ledger, cache, and one client a server.

    Args:
        settings: Of the run.
        stack: Closes what was opened.
        spent_usd: Dollars that the run has cost before it was resumed.
    """

    def __init__(self, settings: RunSettings, stack: ExitStack, spent_usd: float = 0.0) -> None:
        self.settings, self.stack = settings, stack
        limit = settings.max_cost
        if limit is not None:
            limit = max(limit - spent_usd, 0.0)
        self.ledger = UsageLedger(limit, settings.prices)
        self._cache = None
        if settings.cache or settings.replay:
            file = settings.cache or settings.replay or ""
            self._cache = ResponseCache(file, "record" if settings.cache else "replay")
            stack.callback(self._cache.close)
        self._clients: dict[str | None, OpenAIClient] = {}

    def client(self, base_url: str | None) -> OpenAIClient:
        """Return the one client of a server."""
        if base_url not in self._clients:
            self._clients[base_url] = OpenAIClient(
                base_url,
                max_concurrency=max(self.settings.concurrency, _MIN_REQUESTS),
                tokens_per_minute=self.settings.tokens_per_minute,
                ledger=self.ledger,
                cache=self._cache,
            )
        return self._clients[base_url]

    def build_assistant(self, settings: AssistantSettings) -> Assistant:
        """Make the assistant; a local one loads its weights here.

        Raises:
            ValueError: If a server is given without the name of its model.
        """
        if settings.assistant_base_url or settings.assistant_model:
            if not settings.assistant_model:
                raise ValueError(
                    "--assistant_base_url needs --assistant_model, the server's name of it."
                )
            return OpenAIAssistant(
                settings.assistant_model,
                temperature=settings.temperature,
                max_tokens=settings.max_new_tokens,
                client=self.client(settings.assistant_base_url),
                tokenizer_path=settings.tokenizer_path,
            )
        from collabllm.simulation.assistant.local import LocalAssistant  # torch loads here

        return self.stack.enter_context(
            LocalAssistant(
                settings.hf_model_path,
                settings.lora_path,
                settings.use_4bit,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                do_sample=settings.temperature > 0,
            )
        )

    def build_user_factory(self, settings: UserSettings) -> UserFactory:
        """Make the factory of users that the settings name."""
        if settings.user == "sharded":
            return lambda task, seed: RuleBasedUser.from_task(task, seed=seed)
        client = self.client(settings.user_base_url)

        def make_user(task: Task, seed: int) -> UserModel:
            persona = Persona()
            if settings.num_traits:
                persona = Persona.sample(seed, settings.num_traits)
            return OpenAIUserModel(
                task.task_desc,
                task.single_turn_prompt,
                settings.user_model,
                max_tokens=settings.user_max_tokens,
                client=client,
                persona=persona,
            )

        return make_user
