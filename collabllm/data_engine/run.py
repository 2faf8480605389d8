"""What scripts/build_dataset.py does: plan or build, record, resume, describe, push."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from collabllm.cli import go_on_with
from collabllm.data_engine.card import write_card
from collabllm.data_engine.grow import grow_conversations
from collabllm.data_engine.preview import print_lint, print_plan
from collabllm.data_engine.rows import DatasetWriter, to_rows
from collabllm.data_engine.settings import BuildSettings
from collabllm.data_engine.turn_groups import GrowthSettings, TurnGroup
from collabllm.errors import CostLimitError, IncompleteRunError
from collabllm.event_loop import run
from collabllm.files import read_json_lines, sort_json_lines
from collabllm.hub import prepare_hub, push_folder
from collabllm.prompts import prompt_hashes
from collabllm.provenance import RunHeader, library_versions
from collabllm.rewards.applicable import check_applicable
from collabllm.rewards.hackers import score_policies
from collabllm.rewards.lint import lint_rewards
from collabllm.rewards.metrics.text import signatures
from collabllm.rewards.multiturn import RewardEstimate
from collabllm.rewards.registry import LOUD_MISSING_SHARE, MetricTools, check_metrics
from collabllm.servers.kept_usage import keep_usage
from collabllm.servers.usage import UNANSWERED
from collabllm.settings import deciding_values, to_settings
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.session import Session
from collabllm.simulation.shards import describe_whole, to_shard
from collabllm.tasks import Task, open_in_turn
from collabllm.tasks.contents import content_hashes

logger = logging.getLogger(__name__)

DATA_FILE = "train.jsonl"
_HEADER_FILE = "build.json"
_LINTED_TASKS = 10


def build_dataset(settings: BuildSettings | None = None, **arguments: Any) -> Path | None:
    """Build a dataset as the settings say.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name, such as `num_tasks=4, max_turns=2`; they win.

    Returns:
        The dataset's file; None for `plan` and `lint`.

    Raises:
        FileExistsError: If the output exists and `resume` is False.
        FileNotFoundError: If there are rows to go on with, but not their header.
        IncompleteRunError: In the end, if conversations failed or the cost limit was reached.
        ServerError: Before anything runs, if a server does not answer.
        ValueError: If a setting does not fit, or a resumed build has others, other tasks or another
            adapter.
    """
    settings = to_settings(BuildSettings, settings, arguments)
    tasks = open_in_turn(settings.load_tasks(), settings.num_told)
    shard, whole = to_shard(settings.shard), describe_whole((task.task_id, 0) for task in tasks)
    all_tasks, tasks = tasks, [task for task in tasks if (task.task_id, 0) in shard]
    growth = settings.to_growth()
    folder = Path(settings.output_dir)
    planned = settings.plan or settings.lint
    header = RunHeader(
        folder / _HEADER_FILE,
        deciding_values(settings),
        resume=settings.resume and not planned,
        contents=content_hashes(all_tasks, [settings.lora_path]),
        results=folder / DATA_FILE,
    )
    with ExitStack() as stack:
        session = Session(settings, stack)
        tools = settings.build_tools(session)
        check_metrics(growth.reward.weights, replace(tools, count_tokens=len))
        check_applicable(  # a part may have none with facts
            growth.reward.weights, all_tasks, alone=not growth.reward.token_penalty
        )
        user_factory = session.build_user_factory(settings)
        if settings.plan:
            print_plan(settings, len(tasks), session)
            return None
        session.preflight(settings.models_behind_servers())
        hub = None
        if settings.push_to_hub and not settings.lint:
            repo = settings.push_to_hub
            hub = prepare_hub("true", repo, repo, repo_type="dataset")
        if not settings.lint:
            _refuse_rows(folder / DATA_FILE, settings, all_tasks)
            header.write(lost=header.before.get("lost", {}))
        assistant = session.build_assistant(settings)
        if settings.lint:
            tasks, growth = tasks[:_LINTED_TASKS], replace(growth, max_turns=1)
            groups = grow_conversations(tasks, assistant, user_factory, growth, tools=tools)
            turns = [[c.estimate for c in group.candidates] for group in groups]
            scores = run(score_policies(tasks, user_factory, growth.reward, tools))
            print_lint(turns, growth.reward, scores)
            return None
        with (
            DatasetWriter(folder / DATA_FILE, resume=settings.resume) as writer,
            keep_usage(folder, session.ledger, is_new=not settings.resume),
        ):
            header.spent_usd = 0.0  # the ledger counts on from there
            build = _Build(settings, growth, session, writer, header, whole)
            build.num_wanted = len(tasks)
            left = [task for task in tasks if task.task_id not in writer.done]
            try:
                build.run(left, assistant, user_factory, tools)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"Interrupted: {build.describe_kept()}. {go_on_with(resume=True)}"
                ) from None
        build.finish()
        print(f"Dataset: {folder / DATA_FILE}")
        if hub:
            push_folder(folder, hub, "Upload dataset", [DATA_FILE, "README.md"])
        if build.left_undone:
            raise IncompleteRunError(f"{'; '.join(build.left_undone)}. {go_on_with(resume=True)}")
    return folder / DATA_FILE


def _refuse_rows(file: Path, settings: BuildSettings, tasks: Sequence[Task]) -> None:
    """Refuse an output that is there, or has other tasks, before a model loads."""
    if not file.exists():
        return
    if not settings.resume:
        raise FileExistsError(
            f"{file} exists; go on with --resume, or choose another --output_dir."
        )
    written = {str(row.get("conv_id")) for row in read_json_lines(file)}
    other = written - {task.task_id for task in tasks}
    if other and settings.num_tasks is not None:  # it may have been greater
        every = open_in_turn(replace(settings, num_tasks=None).load_tasks(), settings.num_told)
        other -= {task.task_id for task in every}
    if other:
        raise ValueError(
            f"--resume: {file} has conversations about {len(other)} tasks that are not among "
            f"--tasks {settings.tasks} any more ({', '.join(sorted(other)[:5])}); a task without "
            "task_id whose goal was edited is another one. Use the former tasks, or another "
            "--output_dir."
        )


class _Build:
    """One run: progress, rows, state, lint, and the card in the end."""

    def __init__(
        self,
        settings: BuildSettings,
        growth: GrowthSettings,
        session: Session,
        writer: DatasetWriter,
        header: RunHeader,
        whole: str,
    ) -> None:
        self.whole = whole
        self.settings, self.growth, self.folder = settings, growth, Path(settings.output_dir)
        self.session, self.writer, self.header = session, writer, header
        self.lost: Counter[str] = Counter(header.before.get("lost", {}))
        self.failed: Counter[str] = Counter()
        self.left_undone: list[str] = []
        self.num_rows = 0
        self.num_tampered = 0
        self.linted: list[list[RewardEstimate]] | None = []
        self.num_ended = self.num_wanted = 0

    def run(
        self, tasks: Sequence[Task], assistant: Assistant, user_factory: Any, tools: MetricTools
    ) -> None:
        """Build, and write each turn when it is there."""
        self._write_header()
        groups = grow_conversations(
            tasks,
            assistant,
            user_factory,
            self.growth,
            tools=tools,
            contexts=self.writer.contexts,
            concurrency=self.settings.concurrency,
        )
        started, candidates = time.perf_counter(), 0
        with closing(groups), tqdm(total=len(tasks), desc="Tasks", unit="task") as bar:  # type: ignore[type-var]
            try:
                for group in groups:
                    self._take(group)
                    candidates += len(group.candidates)
                    minutes = (time.perf_counter() - started) / 60
                    bar.set_postfix(
                        {
                            "candidates/min": f"{candidates / minutes:.0f}",
                            "cost": f"${self.session.ledger.cost_usd:.4f}",
                        },
                        refresh=False,
                    )
                    bar.update(group.next_user is None)
            except CostLimitError as error:
                self.left_undone.append(f"{error} A higher --max_cost goes on")
            finally:
                self._write_header()

    def _take(self, group: TurnGroup) -> None:
        if group.candidates:
            self.writer.write(*to_rows(group))
            self.num_rows += len(group.candidates)
            self.lost.update(group.lost)
        else:
            self.failed[", ".join(sorted(group.lost))] += 1
        if group.lost:  # not always: it has a line for each task
            self._write_header()
        if group.next_user is None:
            self.num_ended += 1
        self.num_tampered += sum(
            value.is_tampered
            for candidate in group.candidates
            for future in candidate.estimate.futures
            for value in future.metrics.values()
        )
        if self.linted is not None:
            self.linted.append([candidate.estimate for candidate in group.candidates])
            if self.num_ended == _LINTED_TASKS:
                for warning in lint_rewards(self.linted, self.growth.reward).warnings:
                    logger.warning("Reward lint: %s", warning)
                self.linted = None

    def _write_header(self) -> None:
        self.header.write(
            self.session.ledger.cost_usd,
            lost=dict(self.lost),
            num_wanted=self.num_wanted,
            whole_run=self.whole,
        )

    def _settings(self) -> dict[str, Any]:
        return {**deciding_values(self.settings), "num_tasks": self.settings.num_tasks}

    def describe_kept(self) -> str:
        """Say what an interrupted build leaves."""
        return f"{self.num_rows} new rows are kept in {self.folder / DATA_FILE}, in whole turns"

    def finish(self) -> None:
        """Sort the rows, write the card, and say what was lost."""
        sort_json_lines(self.folder / DATA_FILE, ("conv_id", "turn_id", "candidate_idx"))
        columns = ("conv_id", "turn_id", "score", "rewards")
        rows = [
            {name: row[name] for name in columns}
            for row in read_json_lines(self.folder / DATA_FILE)
        ]
        usage = {
            role: f"{used.requests:,} requests, {used.prompt_tokens:,} prompt and "
            f"{used.completion_tokens:,} completion tokens"
            for role, used in self.session.ledger.by_role().items()
        }
        facts = {
            "usage": usage,
            "cost": self.session.ledger.describe_cost(),
            "lost": dict(self.lost),
            "failed": dict(self.failed),
            "prompt_hashes": prompt_hashes(),
            "signatures": signatures(),
            "versions": library_versions(),
        }
        write_card(self.folder, rows, self._settings(), facts)
        for reason, number in self.lost.items():
            print(f"Lost candidates: {number} x {reason}")
        num_lost = sum(n for reason, n in self.lost.items() if reason.startswith("no reward"))
        if num_lost > LOUD_MISSING_SHARE * (num_lost + len(rows)):
            logger.warning("ATTENTION: %d of %d candidates have no reward.", num_lost, len(rows))
        if self.num_tampered:
            logger.warning(
                "ATTENTION: %d values are 0 because a reply tampered with the metric.",
                self.num_tampered,
            )
        self.left_undone += [
            f"{number} conversations failed ({reason})" for reason, number in self.failed.items()
        ]
        for line in self.session.ledger.to_lines():
            print(line)
        if self.session.ledger.num_unanswered:
            print(UNANSWERED.format(self.session.ledger.num_unanswered))
        if cost := self.session.ledger.cost_line():
            print(cost)
