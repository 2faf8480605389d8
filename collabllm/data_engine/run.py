"""What scripts/build_dataset.py does: plan or build, record, resume, describe, push."""

import argparse
import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from collabllm import __version__
from collabllm.data_engine.card import write_card
from collabllm.data_engine.grow import BuildSettings, TurnGroup, build_dataset
from collabllm.data_engine.plan import Assumptions, plan_build
from collabllm.data_engine.rows import DatasetWriter, to_rows
from collabllm.errors import CostLimitError
from collabllm.event_loop import run
from collabllm.files import read_json_lines, sort_json_lines
from collabllm.hub import prepare_hub, push_folder
from collabllm.prompts import prompt_hashes
from collabllm.rewards.arguments import build_tools
from collabllm.rewards.lint import lint_rewards
from collabllm.rewards.metrics.text import signatures
from collabllm.rewards.multiturn import RewardEstimate, RewardSettings
from collabllm.rewards.registry import LOUD_MISSING_SHARE, MetricTools, check_metrics
from collabllm.simulation.arguments import load_chosen_tasks
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.session import Session
from collabllm.tasks import Task, open_with

logger = logging.getLogger(__name__)

DATA_FILE = "train.jsonl"
_STATE_FILE = "build.json"
_LINTED_TASKS = 10
_LIBRARIES = ("openai", "torch", "transformers")
_NOT_COMPARED = (
    *("config", "resume", "concurrency", "max_cost", "push_to_hub", "plan", "lint"),
    *("output", "cache", "cache_mode"),
)
_CALIBRATION_PROMPTS = 16


def run_build(args: argparse.Namespace) -> Path | None:
    """Build a dataset as the flags say; return its file, None for --plan and --lint.

    Raises:
        FileExistsError: If the output exists and --resume is not given.
        ValueError: If a flag does not fit, or a resumed build has other settings.
    """
    tasks = [
        open_with(task, args.num_told[idx % len(args.num_told)])
        for idx, task in enumerate(load_chosen_tasks(args))
    ]
    settings = build_settings(args)
    folder = Path(args.output)
    planned = args.plan or args.lint
    state = {"spent_usd": 0.0} if planned else _read_state(folder, args)
    with ExitStack() as stack:
        session = Session(args, stack, state["spent_usd"])
        tools = build_tools(args, session)
        check_metrics(settings.reward.weights, replace(tools, count_tokens=len))
        user_factory = session.build_user_factory()
        if args.plan:
            print_plan(args, len(tasks), settings, session)
            return None
        hub = None
        if args.push_to_hub and not args.lint:
            hub = prepare_hub("true", args.push_to_hub, args.push_to_hub, repo_type="dataset")
        assistant = session.build_assistant()
        if args.lint:
            tasks, settings = tasks[:_LINTED_TASKS], replace(settings, max_turns=1)
            groups = build_dataset(tasks, assistant, user_factory, settings, tools=tools)
            print_lint([c.estimate for group in groups for c in group.candidates], settings.reward)
            return None
        with DatasetWriter(folder / DATA_FILE, resume=args.resume) as writer:
            build = _Build(args, folder, settings, session, writer, state)
            left = [task for task in tasks if task.task_id not in writer.done]
            build.run(left, assistant, user_factory, tools)
        build.finish()
        if hub:
            push_folder(folder, hub, "Upload dataset", ["*.tmp", _STATE_FILE])
    print(f"Dataset: {folder / DATA_FILE}")
    return folder / DATA_FILE


def build_settings(args: argparse.Namespace) -> BuildSettings:
    """Read growth and reward from the flags."""
    reward = RewardSettings(
        args.weights, args.token_penalty, args.window, args.num_samples, args.sample_budget
    )
    return BuildSettings(
        reward,
        num_candidates=args.num_candidates,
        proactive_share=args.proactive_share,
        max_turns=args.max_turns,
        system_prompt=args.system_prompt,
        seed=args.seed,
        keep_cut_replies=args.keep_cut_replies,
    )


def _read_state(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Read what a build to go on with has spent, and refuse other settings.

    Raises:
        ValueError: If a setting differs.
    """
    file = folder / _STATE_FILE
    settings = _comparable(args)
    if not args.resume or not file.is_file():
        return {"spent_usd": 0.0, "settings": settings, "lost": {}}
    state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for name, value in settings.items():
        before = state["settings"].get(name)
        if before != value:
            raise ValueError(
                f"--resume: {name} was {before!r} and is {value!r} now; use the former value, or "
                "another --output."
            )
    return state


def _comparable(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name not in _NOT_COMPARED}


class _Build:
    """One run: progress, rows, state, lint, and the card in the end."""

    def __init__(
        self,
        args: argparse.Namespace,
        folder: Path,
        settings: BuildSettings,
        session: Session,
        writer: DatasetWriter,
        state: dict[str, Any],
    ) -> None:
        self.args, self.folder, self.settings = args, folder, settings
        self.session, self.writer, self.state = session, writer, state
        self.spent_before = state["spent_usd"]
        self.lost: Counter[str] = Counter(state["lost"])
        self.failed: Counter[str] = Counter()
        self.linted: list[RewardEstimate] | None = []
        self.num_ended = 0

    def run(
        self, tasks: Sequence[Task], assistant: Assistant, user_factory: Any, tools: MetricTools
    ) -> None:
        """Build, and write each turn when it is there."""
        self._write_state()
        groups = build_dataset(
            tasks,
            assistant,
            user_factory,
            self.settings,
            tools=tools,
            contexts=self.writer.contexts,
            concurrency=self.args.concurrency,
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
                            "cost": f"${self._spent():.4f}",
                        },
                        refresh=False,
                    )
                    bar.update(group.next_user is None)
            except CostLimitError as error:
                logger.warning("%s Go on with --resume and a higher --max_cost.", error)

    def _take(self, group: TurnGroup) -> None:
        if group.candidates:
            self.writer.write(*to_rows(group))
            self.lost.update(group.lost)
        else:
            self.failed.update(dict.fromkeys(group.lost, 1))
        self._write_state()
        if group.next_user is None:
            self.num_ended += 1
        if self.linted is not None:
            self.linted += [candidate.estimate for candidate in group.candidates]
            if self.num_ended == _LINTED_TASKS:
                for warning in lint_rewards(self.linted, self.settings.reward):
                    logger.warning("Reward lint: %s", warning)
                self.linted = None

    def _spent(self) -> float:
        return float(self.spent_before) + self.session.ledger.cost_usd

    def _write_state(self) -> None:
        self.state |= {
            "settings": _comparable(self.args),
            "spent_usd": self._spent(),
            "lost": dict(self.lost),
        }
        scratch = self.folder / f"{_STATE_FILE}.tmp"
        scratch.write_text(json.dumps(self.state, indent=1), encoding="utf-8")
        scratch.replace(self.folder / _STATE_FILE)

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
            "cost_usd": self._spent(),
            "lost": dict(self.lost),
            "failed": dict(self.failed),
            "prompt_hashes": prompt_hashes(),
            "signatures": signatures(),
            "versions": {"collabllm": __version__, **{n: version(n) for n in _LIBRARIES}},
        }
        write_card(self.folder, rows, _comparable(self.args), facts)
        for reason, number in self.lost.items():
            print(f"Lost candidates: {number} x {reason}")
        num_lost = sum(n for reason, n in self.lost.items() if reason.startswith("no reward"))
        if num_lost > LOUD_MISSING_SHARE * (num_lost + len(rows)):
            logger.warning("ATTENTION: %d of %d candidates have no reward.", num_lost, len(rows))
        for reason, number in self.failed.items():
            logger.warning(
                "ATTENTION: %d conversations failed and run again with --resume: %s", number, reason
            )
        if self._spent():
            print(f"Cost: ${self._spent():.4f}")


def print_lint(estimates: Sequence[RewardEstimate], settings: RewardSettings) -> None:
    """Print the lint of the rewards of a few tasks."""
    warnings = lint_rewards(estimates, settings)
    print(f"Reward lint, {len(estimates)} candidates:")
    for warning in warnings or ["nothing found"]:
        print(f"- {warning}")


def print_plan(
    args: argparse.Namespace, num_tasks: int, settings: BuildSettings, session: Session
) -> None:
    """Print what the build would take; a local assistant's speed is measured on one batch."""
    assumptions = Assumptions(turns=settings.max_turns)
    models = {}
    if args.assistant_model:
        models["assistant"] = args.assistant_model
    else:
        speed = _measure_speed(session.build_assistant(), args.max_new_tokens)
        assumptions = replace(assumptions, assistant_tokens_per_s=speed)
    if args.user == "openai":
        models["user"] = args.user_model
    if args.judge_model:
        models["judge"] = args.judge_model
    plan = plan_build(num_tasks, settings, args.max_new_tokens, models, assumptions, args.prices)
    print(plan.to_text())
    print(f"Assumed: {assumptions}. Replies of full length, no early end, full batches.")


def _measure_speed(assistant: Assistant, max_new_tokens: int) -> float:
    """Return new tokens a second of one batch of openings."""
    message = [{"role": "user", "content": "Write a long story about a river."}]

    async def generate() -> int:
        replies = await asyncio.gather(
            *(assistant.agenerate(message) for _ in range(_CALIBRATION_PROMPTS))  # type: ignore[arg-type]
        )
        return sum(reply.completion_tokens for reply in replies)

    started = time.perf_counter()
    tokens = run(generate())
    return tokens / (time.perf_counter() - started)
