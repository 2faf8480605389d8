"""Build both sides of a run's conversations from its flags: one assistant, one client a server."""

import argparse
from contextlib import ExitStack

from collabllm.servers.cache import ResponseCache
from collabllm.servers.client import OpenAIClient
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.assistant import Assistant, OpenAIAssistant
from collabllm.simulation.batch import UserFactory
from collabllm.simulation.user_models import OpenAIUserModel, UserModel
from collabllm.simulation.user_models.personas import Persona
from collabllm.simulation.user_models.rule_based import RuleBasedUser
from collabllm.tasks import Task

_MIN_REQUESTS = 64  # at once and a server; a conversation may wait for several metrics


class Session:
    """What all conversations of a run share: ledger, cache, and one client a server.

    Args:
        args: Flags of `simulation.arguments`.
        stack: Closes what was opened.
        spent_usd: Dollars that the run has cost before it was resumed.
    """

    def __init__(self, args: argparse.Namespace, stack: ExitStack, spent_usd: float = 0.0) -> None:
        self.args, self.stack = args, stack
        limit = None if args.max_cost is None else max(args.max_cost - spent_usd, 0.0)
        self.ledger = UsageLedger(limit, args.prices)
        self._cache = None
        if args.cache:
            self._cache = ResponseCache(args.cache, args.cache_mode)
            stack.callback(self._cache.close)
        self._clients: dict[str | None, OpenAIClient] = {}

    def client(self, base_url: str | None) -> OpenAIClient:
        """Return the one client of a server."""
        if base_url not in self._clients:
            self._clients[base_url] = OpenAIClient(
                base_url,
                max_concurrency=max(self.args.concurrency, _MIN_REQUESTS),
                tokens_per_minute=self.args.tokens_per_minute,
                ledger=self.ledger,
                cache=self._cache,
            )
        return self._clients[base_url]

    def build_assistant(self) -> Assistant:
        """Make the assistant; a local one loads its weights here.

        Raises:
            ValueError: If a server is given without the name of its model.
        """
        args = self.args
        if args.assistant_base_url or args.assistant_model:
            if not args.assistant_model:
                raise ValueError(
                    "--assistant_base_url needs --assistant_model, the server's name of it."
                )
            return OpenAIAssistant(
                args.assistant_model,
                temperature=args.temperature,
                max_tokens=args.max_new_tokens,
                client=self.client(args.assistant_base_url),
                tokenizer_path=args.tokenizer_path,
            )
        from collabllm.simulation.assistant.local import LocalAssistant  # torch loads here

        return self.stack.enter_context(
            LocalAssistant(
                args.hf_model_path,
                args.lora_path,
                args.use_4bit,
                max_new_tokens=args.max_new_tokens,
                temperature=args.temperature,
                do_sample=args.temperature > 0,
            )
        )

    def build_user_factory(self) -> UserFactory:
        """Make the factory of users that the flags name."""
        args = self.args
        if args.user == "sharded":
            return lambda task, seed: RuleBasedUser.from_task(task, seed=seed)
        client = self.client(args.user_base_url)

        def make_user(task: Task, seed: int) -> UserModel:
            persona = Persona.sample(seed, args.num_traits) if args.num_traits else Persona()
            return OpenAIUserModel(
                task.task_desc,
                task.single_turn_prompt,
                args.user_model,
                max_tokens=args.user_max_tokens,
                client=client,
                persona=persona,
            )

        return make_user
