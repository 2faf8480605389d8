"""What scripts/simulate_chats.py does: build both sides from flags, simulate, report."""

import argparse
import logging
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from collabllm.simulation.assistant import Assistant, OpenAIAssistant
from collabllm.simulation.audit import audit_rates
from collabllm.simulation.batch import Record, UserFactory, simulate
from collabllm.simulation.openai_client import OpenAIClient
from collabllm.simulation.personas import Persona
from collabllm.simulation.response_cache import ResponseCache
from collabllm.simulation.sharded_user import ShardedUserModel
from collabllm.simulation.simulator import ChatSimulator
from collabllm.simulation.usage import UsageLedger
from collabllm.simulation.user_models import OpenAIUserModel, UserModel
from collabllm.tasks import Task, load_tasks

logger = logging.getLogger(__name__)


def run_simulation(args: argparse.Namespace) -> Path | None:
    """Simulate what the flags say; return the transcript file, None in interactive mode.

    Raises:
        FileExistsError: If the output exists and --resume is not given.
        ValueError: If a flag does not fit.
    """
    tasks = load_tasks(args.tasks, args.num_tasks)
    ledger = UsageLedger(args.max_cost, args.prices)
    with ExitStack() as stack:
        cache = None
        if args.cache:
            cache = ResponseCache(args.cache, args.cache_mode)
            stack.callback(cache.close)
        user_factory = _build_user_factory(args, ledger, cache)
        output = None if args.interactive else Path(args.output)
        if output and output.exists() and not args.resume:
            raise FileExistsError(f"{output} exists; use --resume, or another --output.")
        assistant = _build_assistant(args, ledger, cache, stack)
        system_prompt = args.system_prompt
        if args.interactive:
            prefix: list[Any] = []
            if system_prompt:
                prefix = [{"role": "system", "content": system_prompt}]
            user = user_factory(tasks[0], args.seed)
            ChatSimulator(assistant, user).interactive_rollout(prefix, args.max_turns)
            return None
        records = list(
            simulate(
                tasks,
                assistant,
                user_factory,
                max_turns=args.max_turns,
                num_rollouts=args.num_rollouts,
                concurrency=args.concurrency,
                seed=args.seed,
                output=output,
                resume=args.resume,
                token_budget=args.token_budget,
                system_prompt=system_prompt,
                ledger=ledger,
            )
        )
    print_report(records, ledger)
    print(f"Transcripts: {output}")
    return output


def _build_client(
    base_url: str | None,
    args: argparse.Namespace,
    ledger: UsageLedger,
    cache: ResponseCache | None,
) -> OpenAIClient:
    return OpenAIClient(
        base_url,
        max_concurrency=args.concurrency,
        tokens_per_minute=args.tokens_per_minute,
        ledger=ledger,
        cache=cache,
    )


def _build_assistant(
    args: argparse.Namespace,
    ledger: UsageLedger,
    cache: ResponseCache | None,
    stack: ExitStack,
) -> Assistant:
    if args.assistant_base_url or args.assistant_model:
        if not args.assistant_model:
            raise ValueError(
                "--assistant_base_url needs --assistant_model, the server's name of it."
            )
        client = _build_client(args.assistant_base_url, args, ledger, cache)
        return OpenAIAssistant(
            args.assistant_model,
            temperature=args.temperature,
            max_tokens=args.max_new_tokens,
            client=client,
        )
    from collabllm.simulation.local_assistant import LocalAssistant  # torch loads here

    return stack.enter_context(
        LocalAssistant(
            args.hf_model_path,
            args.lora_path,
            args.use_4bit,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            do_sample=args.temperature > 0,
        )
    )


def _build_user_factory(
    args: argparse.Namespace, ledger: UsageLedger, cache: ResponseCache | None
) -> UserFactory:
    if args.user == "sharded":
        return lambda task, seed: ShardedUserModel.from_task(task, seed=seed)
    client = _build_client(args.user_base_url, args, ledger, cache)

    def make_user(task: Task, seed: int) -> UserModel:
        persona = Persona.sample(seed, args.num_traits) if args.num_traits else Persona()
        return OpenAIUserModel(
            task.task_desc, task.single_turn_prompt, args.user_model, client=client, persona=persona
        )

    return make_user


def print_report(records: list[Record], ledger: UsageLedger) -> None:
    """Print how the conversations ended, what they used, and what the audit found."""
    table = Table(title=f"{len(records)} conversations")
    table.add_column("ending")
    table.add_column("number", justify="right")
    table.add_column("turns", justify="right")
    for reason, number in Counter(
        record.result.termination_reason for record in records
    ).most_common():
        turns = [
            len(record.result.user_turns)
            for record in records
            if record.result.termination_reason is reason
        ]
        table.add_row(str(reason), str(number), f"{sum(turns) / len(turns):.1f}")
    console = Console()
    console.print(table)
    for role, usage in ledger.by_role().items():
        print(
            f"{role}: {usage.requests:,} requests, {usage.prompt_tokens:,} prompt and "
            f"{usage.completion_tokens:,} completion tokens"
        )
    rates = audit_rates(record.audit for record in records)
    if rates:
        found = ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items())
        print(f"Simulator audit, share of conversations: {found}")
    if ledger.cost_usd:
        print(f"Cost: ${ledger.cost_usd:.4f}")
