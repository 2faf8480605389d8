"""What scripts/evaluate.py does: every arm meets every user on the same tasks; then the report."""

import argparse
import asyncio
import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from collabllm import __version__
from collabllm.evaluation.arms import Arm, ArmPool, check_arms, check_not_trained_on
from collabllm.evaluation.measures import BUILT_IN, measure, score_replies, to_score
from collabllm.evaluation.names import check_names, transcript_file
from collabllm.evaluation.report.aggregate import aggregate
from collabllm.evaluation.report.old_overview import write_report
from collabllm.evaluation.report.old_tables import to_markdown, to_summary
from collabllm.evaluation.users import UserSpec
from collabllm.event_loop import get_loop
from collabllm.files import JsonLinesWriter, read_json_lines
from collabllm.prompts import prompt_hashes
from collabllm.rewards.metrics.text import signatures
from collabllm.rewards.registry import LOUD_MISSING_SHARE, MetricTools, MetricValue, check_metrics
from collabllm.rewards.settings import JudgeSettings
from collabllm.simulation.arguments import take
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.batch import Record, simulate
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.session import Session
from collabllm.simulation.settings import RunSettings, TaskSettings
from collabllm.simulation.transcripts import read_transcripts
from collabllm.tasks import Task, open_with
from collabllm.trackers import log_results

logger = logging.getLogger(__name__)

RESULTS_FILE, TABLE_FILE, REPORT_FILE = "results.json", "table.md", "report.html"
_SCORES_FILE, _SETTINGS_FILE = "scores.jsonl", "settings.json"
_LIBRARIES = ("openai", "peft", "torch", "transformers")
_NOT_COMPARED = ("config", "resume", "concurrency", "max_cost", "report_to", "reference")

Key = tuple[str, str, str, int]


class ScoreWriter(JsonLinesWriter):
    """Appends the scores of conversations; `done` has those that need not be scored again."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.done: set[Key] = set()
        super().__init__(path, resume=resume)

    def choose_kept(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep the scores of conversations that did not fail."""
        kept = [record for record in records if not record["failed"]]
        self.done = {(r["arm"], r["user"], r["task_id"], r["rollout_idx"]) for r in kept}
        return kept


def run_evaluation(args: argparse.Namespace) -> Path:
    """Evaluate as the flags say; return the report's path.

    Raises:
        FileExistsError: If the output exists and --resume is not given.
        ValueError: If a flag does not fit, or an arm was trained on the tasks.
    """
    arms: list[Arm] = args.arm
    check_arms(arms)
    names = [arm.name for arm in arms]
    reference = args.reference or names[0]
    if reference not in names:
        raise ValueError(f"--reference {reference} is not an arm; arms: {', '.join(names)}.")
    users = args.user or [UserSpec("sharded")]
    check_names(names, [user.name for user in users])
    tasks = take(TaskSettings, args).load_tasks()
    for arm in arms:
        check_not_trained_on(arm, tasks)
    folder = Path(args.output)
    _check_settings(folder, args)
    with ExitStack() as stack:
        session = Session(take(RunSettings, args), stack)
        tools = take(JudgeSettings, args).build_tools(session)
        check_metrics(args.metrics, replace(tools, count_tokens=len))
        scores = stack.enter_context(ScoreWriter(folder / _SCORES_FILE, resume=args.resume))
        pool = ArmPool(args, session)
        evaluation = _Evaluation(args, folder, session, tools, scores)
        for arm in arms:
            with pool.assistant(arm) as assistant:
                for user in users:
                    evaluation.meet(arm, assistant, user, tasks)
        facts = evaluation.facts(arms, users, tasks, reference)
    return _finish(args, folder, facts, names, reference)


def _check_settings(folder: Path, args: argparse.Namespace) -> None:
    """Write the settings at first, and refuse others when an evaluation goes on."""
    settings = {
        name: repr(value) for name, value in vars(args).items() if name not in _NOT_COMPARED
    }
    file = folder / _SETTINGS_FILE
    if args.resume and file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"--resume: {name} was {before.get(name)} and is {value} now; use the former "
                    "value, or another --output."
                )
        return
    if (folder / _SCORES_FILE).exists() and not args.resume:
        raise FileExistsError(f"{folder} has an evaluation; use --resume, or another --output.")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1), encoding="utf-8")


class _Evaluation:
    """Simulates and scores the conversations of one arm with one user at a time."""

    def __init__(
        self,
        args: argparse.Namespace,
        folder: Path,
        session: Session,
        tools: MetricTools,
        scores: ScoreWriter,
    ) -> None:
        self.args, self.folder, self.session = args, folder, session
        self.tools, self.scores = tools, scores

    def meet(self, arm: Arm, assistant: Assistant, user: UserSpec, tasks: Sequence[Task]) -> None:
        """Simulate what is left of this pair, and score what has no score yet."""
        tools = replace(self.tools, count_tokens=assistant.count_tokens)
        variants = {
            variant.task_id: (variant, num_told)
            for num_told in self.args.num_told
            for task in tasks
            for variant in [open_with(task, num_told)]
        }
        file = transcript_file(self.folder, arm.name, user.name)
        waiting: list[tuple[Record, Future[dict[str, MetricValue]]]] = []

        def score(record: Record) -> None:
            task, _ = variants[record.task_id]
            job = measure(record, task, self.args.metrics, tools)
            waiting.append((record, asyncio.run_coroutine_threadsafe(job, get_loop())))

        for record in _unscored(file, arm, user, self.scores.done) if self.args.resume else ():
            score(record)
        print(f"{arm.name} with user {user.name}: {len(variants)} tasks")
        for record in simulate(
            [variant for variant, _ in variants.values()],
            assistant,
            user.build_factory(self.session.client),
            max_turns=self.args.max_turns,
            num_rollouts=self.args.num_rollouts,
            concurrency=self.args.concurrency,
            seed=self.args.seed,
            output=file,
            resume=self.args.resume,
            system_prompt=arm.prompt(self.args.system_prompt),
            ledger=self.session.ledger,
        ):
            if record.result.termination_reason is not TerminationReason.CANCELLED:
                score(record)
        for record, future in waiting:
            task, num_told = variants[record.task_id]
            known = num_told if task.facts else None
            replies = score_replies(record.result.messages, task, tools)
            values = future.result()
            self.scores.write(to_score(arm.name, user.name, known, record, values, replies))

    def facts(
        self, arms: Sequence[Arm], users: Sequence[UserSpec], tasks: Sequence[Task], reference: str
    ) -> dict[str, Any]:
        """Collect what the results say about how they came about."""
        return {
            "arms": [asdict(arm) for arm in arms],
            "users": [asdict(user) for user in users],
            "reference": reference,
            "metrics": [*self.args.metrics, *BUILT_IN],
            "tasks": [task.task_id for task in tasks],
            "seed": self.args.seed,
            "settings": {
                name: value
                for name, value in vars(self.args).items()
                if isinstance(value, (str, int, float, list, type(None)))
                and name not in ("arm", "user")
            },
            "usage": {role: vars(used) for role, used in self.session.ledger.by_role().items()},
            "cost_usd": self.session.ledger.cost_usd,
            "prompt_hashes": prompt_hashes(),
            "signatures": signatures(),
            "versions": {"collabllm": __version__, **{n: version(n) for n in _LIBRARIES}},
        }


def _unscored(file: Path, arm: Arm, user: UserSpec, done: set[Key]) -> list[Record]:
    """Read conversations that ended before a kill came between them and their score."""
    if not file.is_file():
        return []
    return [
        Record.from_json(line)
        for line in read_transcripts(file)
        if not line["failed"]
        and (arm.name, user.name, line["task_id"], line["rollout_idx"]) not in done
    ]


def _finish(
    args: argparse.Namespace,
    folder: Path,
    facts: dict[str, Any],
    names: Sequence[str],
    reference: str,
) -> Path:
    """Aggregate, write results, table and report, print them, and log to trackers."""
    scores = list(read_json_lines(folder / _SCORES_FILE))
    if not scores:
        raise ValueError("No conversation ended; see the messages above.")
    results = {**facts, **aggregate(scores, names, reference, facts["metrics"], args.seed)}
    _warn_missing(results["summaries"])
    table = to_markdown(results)
    (folder / RESULTS_FILE).write_text(
        json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    (folder / TABLE_FILE).write_text(table, encoding="utf-8")
    report = write_report(folder / REPORT_FILE, folder, results, scores, overwrite=True)
    Console().print(Markdown(to_summary(results)))
    print(f"All tables: {folder / TABLE_FILE}")
    log_results(args.report_to, folder, results["summaries"], facts["settings"])
    if facts["cost_usd"]:
        print(f"Cost: ${facts['cost_usd']:.4f}")
    print(f"Report: {report}")
    return report


def _warn_missing(summaries: Sequence[dict[str, Any]]) -> None:
    for summary in summaries:
        total = summary["num_missing"] + (summary.get("num_values") or 0)
        if summary["num_missing"] > LOUD_MISSING_SHARE * total:
            logger.warning(
                "ATTENTION: %s of arm %s is missing in %d of %d conversations (%s).",
                summary["metric"],
                summary["arm"],
                summary["num_missing"],
                total,
                ", ".join(f"{n}x {reason}" for reason, n in summary["missing_reasons"].items()),
            )
