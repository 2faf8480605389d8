"""What scripts/simulate_chats.py does: build both sides from settings, simulate, report."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.table import Table

from collabllm.cli import go_on_with
from collabllm.errors import IncompleteRunError
from collabllm.provenance import RunHeader
from collabllm.servers.usage import UsageLedger
from collabllm.settings import deciding_values, to_settings
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.audit import audit_rates
from collabllm.simulation.batch import Record, UserFactory, simulate
from collabllm.simulation.session import Session
from collabllm.simulation.settings import SimulationSettings
from collabllm.simulation.simulator import ChatSimulator
from collabllm.simulation.transcripts import read_transcripts
from collabllm.tasks import Task

logger = logging.getLogger(__name__)


def simulate_chats(settings: SimulationSettings | None = None, **arguments: Any) -> list[Record]:
    """Simulate what the settings say, write the transcripts, and print a report.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name, such as `num_tasks=4, max_turns=2`; they win.

    Returns:
        All conversations in the file of transcripts, those of a run gone on with included; none in
        interactive mode.

    Raises:
        FileExistsError: If there are transcripts and `resume` is False.
        IncompleteRunError: In the end, if conversations failed or were not started.
        ServerError: Before anything runs, if a server does not answer.
        ValueError: If a setting does not fit, or a run to go on with had others.
    """
    settings = to_settings(SimulationSettings, settings, arguments)
    tasks = settings.load_tasks()
    file = settings.transcripts
    if not settings.interactive and file.exists() and not settings.resume:
        raise FileExistsError(f"{file} exists; use --resume, or another --output_dir.")
    header = RunHeader(settings.header, deciding_values(settings), resume=settings.resume)
    with ExitStack() as stack:
        session = Session(settings, stack, header.spent_usd)
        user_factory = session.build_user_factory(settings)
        session.preflight(settings.models_behind_servers())
        assistant = session.build_assistant(settings)
        if settings.interactive:
            _talk(settings, tasks[0], assistant, user_factory)
            return []
        header.write(session.ledger.cost_usd)
        try:
            for _ in simulate(
                tasks,
                assistant,
                user_factory,
                max_turns=settings.max_turns,
                num_rollouts=settings.num_rollouts,
                concurrency=settings.concurrency,
                seed=settings.seed,
                output=file,
                resume=settings.resume,
                token_budget=settings.token_budget,
                system_prompt=settings.system_prompt,
                ledger=session.ledger,
            ):
                header.write(session.ledger.cost_usd)
        except KeyboardInterrupt:
            num_kept = sum(not line["failed"] for line in read_transcripts(file))
            raise KeyboardInterrupt(
                f"Interrupted: {num_kept} conversations are kept in {file}. {_how_to_go_on()}"
            ) from None
    records = [Record.from_json(line) for line in read_transcripts(file)]
    print_report(records, session.ledger)
    print(f"Transcripts: {file}")
    wanted = {(task.task_id, idx) for task in tasks for idx in range(settings.num_rollouts)}
    _check_complete(records, wanted)
    return records


def _how_to_go_on() -> str:
    return go_on_with("--resume", "resume=True")


def _check_complete(records: Sequence[Record], wanted: Collection[tuple[str, int]]) -> None:
    """Tell in the end that conversations failed or are missing.

    Raises:
        IncompleteRunError: If so.
    """
    ended = {(r.task_id, r.rollout_idx): r.result for r in records}
    failed = [r for r in ended.values() if r.termination_reason.is_failure]
    num_missing = sum(key not in ended for key in wanted)
    if not failed and not num_missing:
        return
    counts = Counter(str(result.termination_reason) for result in failed)
    parts = [f"{number} ended as {reason}" for reason, number in counts.most_common()]
    parts += [f"{num_missing} were not started or were cancelled"] if num_missing else []
    why = next((f" ({r.error[:300]})" for r in failed if r.error), "")
    raise IncompleteRunError(
        f"Of {len(wanted)} conversations {' and '.join(parts)}{why}. {_how_to_go_on()}"
    )


def _talk(
    settings: SimulationSettings, task: Task, assistant: Assistant, user_factory: UserFactory
) -> None:
    prefix: list[Any] = []
    if settings.system_prompt:
        prefix = [{"role": "system", "content": settings.system_prompt}]
    user = user_factory(task, settings.seed)
    ChatSimulator(assistant, user).interactive_rollout(prefix, settings.max_turns)


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
