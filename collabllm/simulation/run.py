"""What scripts/simulate_chats.py does: build both sides from settings, simulate, report."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from collabllm.cli import go_on_with
from collabllm.errors import IncompleteRunError
from collabllm.provenance import RunHeader
from collabllm.servers.usage import UsageLedger
from collabllm.settings import deciding_values, to_settings
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.batch import Record, UserFactory, simulate
from collabllm.simulation.report import RunReport
from collabllm.simulation.session import Session
from collabllm.simulation.settings import SimulationSettings
from collabllm.simulation.shards import describe_whole, to_shard
from collabllm.simulation.simulator import ChatSimulator
from collabllm.simulation.transcripts import read_transcripts
from collabllm.tasks import Task, open_in_turn
from collabllm.tasks.contents import content_hashes

logger = logging.getLogger(__name__)


class Transcripts:
    """The conversations in a file of transcripts, read one at a time, as often as wanted."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)

    def __iter__(self) -> Iterator[Record]:
        return map(Record.from_json, read_transcripts(self.file))

    def __len__(self) -> int:
        return sum(1 for _ in read_transcripts(self.file))


def simulate_chats(
    settings: SimulationSettings | None = None, **arguments: Any
) -> Transcripts | None:
    """Simulate what the settings say, write the transcripts, and print a report.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name, such as `num_tasks=4, max_turns=2`; they win.

    Returns:
        All conversations in the file of transcripts, those of a run gone on with included; None in
        interactive mode.

    Raises:
        FileExistsError: If there are transcripts and `resume` is False.
        FileNotFoundError: If there are transcripts to go on with, but not their header.
        IncompleteRunError: In the end, if conversations failed or were not started.
        ServerError: Before anything runs, if a server does not answer.
        ValueError: If a setting does not fit, or a run to go on with had others, other tasks or
            another adapter.
    """
    settings = to_settings(SimulationSettings, settings, arguments)
    tasks = open_in_turn(settings.load_tasks(), settings.num_told)
    file = settings.transcripts
    if not settings.interactive and file.exists() and not settings.resume:
        raise FileExistsError(f"{file} exists; use --resume, or another --output_dir.")
    header = RunHeader(
        settings.header,
        deciding_values(settings),
        resume=settings.resume,
        contents=content_hashes(tasks, [settings.lora_path]),
        results=file,
    )
    header.spent_usd = 0.0  # the ledger counts on from there
    with ExitStack() as stack:
        session = Session(settings, stack)
        _restore_usage(session.ledger, header)
        user_factory = session.build_user_factory(settings)
        session.preflight(settings.models_behind_servers())
        if not settings.interactive:
            file.parent.mkdir(parents=True, exist_ok=True)  # fails before a model loads
        assistant = session.build_assistant(settings)
        if settings.interactive:
            _talk(settings, tasks[0], assistant, user_factory)
            return None
        run = _Run(settings, header, session.ledger, tasks)
        records = run.start(tasks, assistant, user_factory)
        try:
            for _ in records:
                pass
        except KeyboardInterrupt:
            num_kept = sum(not line["failed"] for line in read_transcripts(file))
            raise KeyboardInterrupt(
                f"Interrupted: {num_kept} conversations are kept in {file}. "
                f"{go_on_with(resume=True)}"
            ) from None
        except IncompleteRunError as error:
            kept = f"What has ended is kept. {go_on_with(resume=True)}"
            raise IncompleteRunError(f"{error} {kept}") from None
        finally:
            report = run.finish()
    report.check_complete(go_on_with(resume=True))
    return Transcripts(file)


def _restore_usage(ledger: UsageLedger, header: RunHeader) -> None:
    """Count on from what the run had used before; a killed part of it left a journal."""
    ledger.restore(header.before.get("usage", ()))
    journal = _journal_of(header, header.before.get("num_parts", 0) + 1)
    if header.before and journal.exists():
        ledger.restore_journal(journal)


def _journal_of(header: RunHeader, part: int) -> Path:
    """Return the journal of a part of a run; the header has the usage of the parts before."""
    return header.path.with_name(f".{header.path.stem}.usage-{part}.jsonl")


class _Run:
    """One run: what it writes beside the transcripts, and what it prints in the end."""

    def __init__(
        self,
        settings: SimulationSettings,
        header: RunHeader,
        ledger: UsageLedger,
        tasks: Sequence[Task],
    ) -> None:
        self.settings, self.header, self.ledger = settings, header, ledger
        self.part = header.before.get("num_parts", 0) + 1
        self.shard = to_shard(settings.shard)
        keys = [(task.task_id, i) for task in tasks for i in range(settings.num_rollouts)]
        self.wanted = [key for key in keys if key in self.shard]
        self.whole = describe_whole(keys)

    def start(
        self, tasks: Sequence[Task], assistant: Assistant, user_factory: UserFactory
    ) -> Iterator[Record]:
        """Take the file, and return the conversations that are not in it yet, as they end.

        Raises:
            OSError: If the file cannot be written, or another process writes it.
        """
        settings = self.settings
        records = simulate(
            tasks,
            assistant,
            user_factory,
            max_turns=settings.max_turns,
            num_rollouts=settings.num_rollouts,
            concurrency=settings.concurrency,
            seed=settings.seed,
            output=settings.transcripts,
            resume=settings.resume,
            token_budget=settings.token_budget,
            system_prompt=settings.system_prompt,
            ledger=self.ledger,
            fail_on_error=settings.fail_on_error,
            shard=self.shard,
        )
        # Keep what was used so far, and each request from now on, whatever ends this process.
        is_resumed = bool(self.header.before)
        self._write_header(self.part if is_resumed else 0)
        _journal_of(self.header, self.part).unlink(missing_ok=True)
        self.part += is_resumed
        self.ledger.start_journal(_journal_of(self.header, self.part))
        return records

    def _write_header(self, num_parts: int) -> None:
        self.header.write(
            self.ledger.cost_usd,
            usage=self.ledger.to_entries(),
            num_parts=num_parts,
            num_wanted=len(self.wanted),
            whole_run=self.whole,
        )

    def finish(self) -> RunReport:
        """Print how all conversations in the file went, and what the run used, resumes included."""
        self._write_header(self.part)
        self.ledger.stop_journal()
        report = RunReport(self.wanted)
        if self.settings.transcripts.exists():
            for line in read_transcripts(self.settings.transcripts):
                report.add(line)
        report.print(self.ledger)
        print(f"Transcripts: {self.settings.transcripts}")
        return report


def _talk(
    settings: SimulationSettings, task: Task, assistant: Assistant, user_factory: UserFactory
) -> None:
    prefix: list[Any] = []
    if settings.system_prompt:
        prefix = [{"role": "system", "content": settings.system_prompt}]
    user = user_factory(task, settings.seed)
    ChatSimulator(assistant, user).interactive_rollout(prefix, settings.max_turns)
