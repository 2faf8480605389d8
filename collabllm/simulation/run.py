"""What scripts/simulate_chats.py does: build both sides from flags, simulate, report."""

import argparse
import logging
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from collabllm.servers.usage import UsageLedger
from collabllm.simulation.arguments import load_chosen_tasks
from collabllm.simulation.audit import audit_rates
from collabllm.simulation.batch import Record, simulate
from collabllm.simulation.session import Session
from collabllm.simulation.simulator import ChatSimulator

logger = logging.getLogger(__name__)


def run_simulation(args: argparse.Namespace) -> Path | None:
    """Simulate what the flags say; return the transcript file, None in interactive mode.

    Raises:
        FileExistsError: If the output exists and --resume is not given.
        ValueError: If a flag does not fit.
    """
    tasks = load_chosen_tasks(args)
    with ExitStack() as stack:
        session = Session(args, stack)
        user_factory = session.build_user_factory()
        output = None if args.interactive else Path(args.output)
        if output and output.exists() and not args.resume:
            raise FileExistsError(f"{output} exists; use --resume, or another --output.")
        assistant = session.build_assistant()
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
                ledger=session.ledger,
            )
        )
    print_report(records, session.ledger)
    print(f"Transcripts: {output}")
    return output


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
