"""What scripts/evaluate.py does: every arm meets every user on the same tasks; then the report."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from collabllm.cli import go_on_with
from collabllm.errors import IncompleteRunError
from collabllm.evaluation.analysis import SCORES_FILE, analyse_folder
from collabllm.evaluation.arms import Arm, ArmPool
from collabllm.evaluation.names import transcript_file
from collabllm.evaluation.planning import Prepared, prepare
from collabllm.evaluation.report.summary import write_reports
from collabllm.evaluation.results import Results, write_results
from collabllm.evaluation.scoring import RESCORE_ALL, Pair, Scorer, ScoreWriter
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.rewards.applicable import check_applicable
from collabllm.rewards.registry import MetricTools, check_metrics, needs_of
from collabllm.servers.client import Address
from collabllm.servers.kept_usage import keep_usage
from collabllm.settings import to_settings
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.batch import Record, simulate
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.session import Session
from collabllm.simulation.transcripts import read_transcripts
from collabllm.simulation.user_models.registry import UserSpec
from collabllm.trackers import check_tracker, log_results

logger = logging.getLogger(__name__)


def evaluate(settings: EvaluationSettings | None = None, **arguments: Any) -> Results:
    """Let every arm meet every user on the same tasks, and write results and report.

    `evaluate(arm=["name=base", "name=sft,lora_path=outputs/run"], held_out_of="outputs/run")`

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name; they win.

    Returns:
        What results.json in `output_dir` holds.

    Raises:
        FileExistsError: If there is an evaluation and `resume` is False.
        IncompleteRunError: If not every planned conversation ended; results and report say so.
        KeyboardInterrupt: After Ctrl-C; the text says what is kept.
        ServerError: Before anything runs, if a server that is needed does not answer.
        ValueError: If a setting does not fit, or an arm was trained on the tasks.
    """
    settings = to_settings(EvaluationSettings, settings, arguments)
    if settings.study:
        from collabllm.evaluation.study.analysis import analyse_study

        return analyse_study(
            Path(settings.study), Path(settings.agree_with) if settings.agree_with else None
        )
    check_tracker(settings.report_to)
    folder = Path(settings.output_dir)
    stopped: IncompleteRunError | None = None
    try:
        stopped = _converse(settings, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted; what has ended is kept in {folder}. {go_on_with(resume=True)}"
        ) from None
    results = render_results(folder)
    means = {
        f"{cell.arm}/{cell.user}/{cell.opening}/{cell.metric}": cell.mean
        for cell in results.cells
        if cell.mean is not None
    }
    log_results(settings.report_to, folder, means, results.settings)
    if not results.complete:
        missing = sum(p.planned - p.done for p in results.progress)
        raise IncompleteRunError(
            f"{missing} of {sum(p.planned for p in results.progress)} conversations are missing. "
            + (f"{stopped} " if stopped else "")
            + go_on_with(resume=True)
        )
    return results


def render_results(folder: str | Path) -> Results:
    """Compute the results of an evaluation anew from its files, and write results and report.

    Raises:
        FileNotFoundError: If the folder has no evaluation.
    """
    folder = Path(folder)
    results = analyse_folder(folder)
    write_results(folder, results)
    for note in results.notes:
        logger.warning("ATTENTION: %s", note)
    write_reports(folder, results)
    return results


def _converse(settings: EvaluationSettings, folder: Path) -> IncompleteRunError | None:
    """Do what is left of the plan; return why it stopped early, if it did."""
    with ExitStack() as stack:
        session = Session(settings, stack)
        tools = settings.build_tools(session)
        prepared = plan_evaluation(settings, tools)
        scores = stack.enter_context(ScoreWriter(folder / SCORES_FILE, resume=True))
        stack.enter_context(keep_usage(folder, session.ledger))
        evaluation = _Evaluation(settings, folder, prepared, session, tools, scores)
        session.preflight(evaluation.models_needed())
        prepared.start(settings)
        try:
            evaluation.run(ArmPool(settings, session))
        except IncompleteRunError as error:
            return error
    return None


def plan_evaluation(settings: EvaluationSettings, tools: MetricTools) -> Prepared:
    """Check all that can be checked before anything is paid for, and plan; writes nothing.

    Raises:
        FileExistsError: If there is an evaluation and `resume` is False.
        FileNotFoundError: If an adapter or a file of tasks is not there.
        SandboxUnavailableError: If a metric would run model-written code without isolation.
        ValueError: If a setting does not fit, or an arm was trained on the tasks.
    """
    metric_tools = replace(tools, count_tokens=len)  # each arm's assistant brings its own
    prepared = prepare(settings, lambda metrics: check_metrics(metrics, metric_tools))
    check_applicable(prepared.plan.metrics, [task for task, _ in prepared.opened.values()])
    return prepared


class _Evaluation:
    """Simulates and scores the conversations of one arm with one user at a time."""

    def __init__(
        self,
        settings: EvaluationSettings,
        folder: Path,
        prepared: Prepared,
        session: Session,
        tools: MetricTools,
        scores: ScoreWriter,
    ) -> None:
        self.settings, self.folder, self.prepared = settings, folder, prepared
        self.session, self.tools, self.scores = session, tools, scores

    def run(self, pool: ArmPool) -> None:
        """Go through arms and their trainings; what is done loads no weights."""
        for arm, seed, path in self._trainings():
            if all(self._is_done(arm, seed, user) for user in self.prepared.users):
                for user in self.prepared.users:
                    self._score_rest(arm, seed, user, pool)
                continue
            with pool.assistant(arm, path) as assistant:
                for user in self.prepared.users:
                    self._meet(arm, seed, user, assistant)

    def models_needed(self) -> list[tuple[str, Address, str]]:
        """Return the models behind servers that the rest of the work asks, for a preflight."""
        found: list[tuple[str, Address, str]] = []
        judged = [name for name in self.prepared.plan.metrics if "judge" in needs_of(name)]
        is_judge_needed = False
        for arm, seed, _ in self._trainings():
            for user in self.prepared.users:
                if not self._is_done(arm, seed, user):
                    found += [(arm.model, arm.base_url, "assistant")] if arm.model else []
                    found += user.models_behind_servers()
                    is_judge_needed |= bool(judged)
                elif not is_judge_needed:
                    scorer = self._scorer(arm, seed, user, self.tools, judged)
                    is_judge_needed = any(
                        True for _ in scorer.unscored(self._file(arm, seed, user))
                    )
        return [*found, *(self.settings.models_behind_servers() if is_judge_needed else [])]

    def _trainings(self) -> Iterator[tuple[Arm, str, str | None]]:
        """Yield each arm, with the name and the adapter of each of its trainings."""
        for arm, info in zip(self.prepared.arms, self.prepared.plan.arms, strict=True):
            paths: list[str | None] = [*info.lora_paths] or [None]
            for seed, path in zip(info.training_seeds or [""], paths, strict=True):
                yield arm, seed, path

    def _scorer(
        self,
        arm: Arm,
        seed: str,
        user: UserSpec,
        tools: MetricTools,
        metrics: Sequence[str] | None = None,
    ) -> Scorer:
        rescore = self.settings.rescore
        if metrics is not None:
            rescore = [name for name in rescore if name in (*metrics, RESCORE_ALL)]
        return Scorer(
            Pair(arm.name, seed, user.name, tools),
            self.prepared.opened,
            self.prepared.plan.metrics if metrics is None else metrics,
            self.scores,
            rescore,
        )

    def _file(self, arm: Arm, seed: str, user: UserSpec) -> Path:
        return transcript_file(self.folder, arm.name, user.name, seed)

    def _is_done(self, arm: Arm, seed: str, user: UserSpec) -> bool:
        file = self._file(arm, seed, user)
        lines = read_transcripts(file) if file.is_file() else ()
        done = {(line["task_id"], line["rollout_idx"]) for line in lines if not line["failed"]}
        numbers = range(self.prepared.plan.num_rollouts)
        return all((task_id, i) in done for task_id in self.prepared.opened for i in numbers)

    def _score_rest(self, arm: Arm, seed: str, user: UserSpec, pool: ArmPool) -> None:
        """Score kept conversations whose scores lack something."""
        scorer = self._scorer(arm, seed, user, self.tools)
        records = list(scorer.unscored(self._file(arm, seed, user)))
        if not records:
            return
        tools = replace(self.tools, count_tokens=pool.counter(arm))
        scorer = self._scorer(arm, seed, user, tools)
        for record in records:
            scorer.add(record)
        scorer.finish()

    def _meet(self, arm: Arm, seed: str, user: UserSpec, assistant: Assistant) -> None:
        """Simulate what is left of this pair, and score what has no score yet."""
        tools = replace(self.tools, count_tokens=assistant.count_tokens)
        scorer = self._scorer(arm, seed, user, tools)
        file = self._file(arm, seed, user)
        name = f"{arm.name} ({seed})" if seed else arm.name
        print(f"{name} with user {user.name}: {len(self.prepared.opened)} opened tasks")
        try:
            for record in scorer.unscored(file):
                scorer.add(record)
            for record in self._simulate_rest(arm, user, assistant, file):
                if record.result.termination_reason is not TerminationReason.CANCELLED:
                    scorer.add(record)
            scorer.finish()
        except KeyboardInterrupt:
            scorer.cancel()
            raise
        except IncompleteRunError:
            scorer.finish()
            raise

    def _simulate_rest(
        self, arm: Arm, user: UserSpec, assistant: Assistant, file: Path
    ) -> Iterator[Record]:
        return simulate(
            [task for task, _ in self.prepared.opened.values()],
            assistant,
            user.build_factory(self.session.client),
            max_turns=self.settings.max_turns,
            num_rollouts=self.prepared.plan.num_rollouts,
            concurrency=self.settings.concurrency,
            seed=self.settings.seed,
            output=file,
            resume=True,
            system_prompt=arm.prompt(self.settings.system_prompt),
            ledger=self.session.ledger,
        )
