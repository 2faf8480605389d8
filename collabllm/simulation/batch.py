"""Many simulated conversations at once: bounded, seeded, recorded, resumable."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from collabllm.errors import IncompleteRunError
from collabllm.event_loop import run_blocking, stream
from collabllm.messages import Message
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.assistant import Assistant, Generates, to_assistant
from collabllm.simulation.audit import AuditRates, audit_conversation, measure_user
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.record import Record
from collabllm.simulation.shards import WHOLE, Shard
from collabllm.simulation.simulator import ChatSimulator, RolloutResult, derive_seed
from collabllm.simulation.transcripts import TranscriptWriter
from collabllm.simulation.user_models import Persona, UserModel
from collabllm.simulation.user_models.registry import UserFactory
from collabllm.tasks import Task
from collabllm.tasks.matching import uses_encoder

__all__ = ["Record", "UserFactory", "simulate"]

_BREAKER = 20  # conversations in a row that failed in one way: the next ones will, too
_MIN_ERRORS = 3  # unexpected ones, however small the batch


def simulate(
    tasks: Sequence[Task],
    assistant: Assistant | Generates,
    user_factory: UserFactory,
    *,
    max_turns: int,
    num_rollouts: int = 1,
    concurrency: int = 16,
    seed: int = 0,
    output: str | Path | None = None,
    resume: bool = False,
    token_budget: int | None = None,
    system_prompt: str | None = None,
    ledger: UsageLedger | None = None,
    progress: bool = True,
    fail_on_error: float = 0.1,
    shard: Shard = WHOLE,
    deadline_s: float | None = None,
) -> Iterator[Record]:
    """Simulate every task `num_rollouts` times, and yield each conversation when it ends.

    Seeds derive from (seed, task, rollout, turn): where the backends honour them, results depend
    neither on order nor on concurrency. Closing the iterator, or Ctrl-C, stops the rest; what has
    ended is in `output` by then.

    Args:
        tasks: What the conversations are about.
        assistant: Answers them all; any object with `generate(messages) -> str` will do.
        user_factory: Makes a conversation's user from (task, seed).
        max_turns: Most simulated user messages of each.
        num_rollouts: Conversations per task.
        concurrency: Most conversations at once.
        seed: Seed of the whole batch.
        output: JSONL file to append records to.
        resume: Go on with `output`: finished ones are passed over, failed ones run again.
        token_budget: Most tokens of the assistant in one conversation.
        system_prompt: First message of every conversation.
        ledger: For the running cost; its limit stops the batch.
        progress: Show a bar with conversations per minute, tokens per second and cost.
        fail_on_error: Stop when more than this share of the conversations (and at least 3) ended by
            an unexpected error; 1 never stops.
        shard: Do only the conversations in this part of the run.
        deadline_s: Seconds after which a conversation ends as `error`; None waits for ever.

    Raises:
        IncompleteRunError: After what is under way, when 20 conversations in a row failed in one
            way, or `fail_on_error` is exceeded.
        FileExistsError: If `output` exists and `resume` is False.
        ValueError: If a number is out of range or two tasks have one id.
    """
    if max_turns < 0 or num_rollouts < 1 or concurrency < 1:
        raise ValueError("max_turns must be at least 0, num_rollouts and concurrency at least 1.")
    ids = Counter(task.task_id for task in tasks)
    double = [task_id for task_id, count in ids.items() if count > 1]
    if double:
        raise ValueError(f"Tasks need ids of their own; used twice: {', '.join(double[:5])}.")
    writer = TranscriptWriter(output, resume=resume) if output else None
    jobs = [
        (task, rollout_idx)
        for rollout_idx in range(num_rollouts)
        for task in tasks
        if (task.task_id, rollout_idx) in shard
        and (not writer or (task.task_id, rollout_idx) not in writer.done)
    ]
    batch = _Batch(
        to_assistant(assistant), user_factory, max_turns, token_budget, seed, system_prompt
    )
    batch.deadline_s = deadline_s
    batch.shared_time = min(concurrency, len(jobs)) > 1
    breaker = _Breaker(fail_on_error * len(jobs))
    return _stream(batch, jobs, concurrency, writer, ledger, progress, breaker)


class _Batch:
    """What all conversations of a batch share."""

    def __init__(
        self,
        assistant: Assistant,
        user_factory: UserFactory,
        max_turns: int,
        token_budget: int | None,
        seed: int,
        system_prompt: str | None,
    ) -> None:
        self.assistant, self.user_factory = assistant, user_factory
        self.max_turns, self.token_budget, self.seed = max_turns, token_budget, seed
        self.system_prompt = system_prompt
        self.shared_time = False
        self.deadline_s: float | None = None

    async def converse(self, task: Task, rollout_idx: int, stop: asyncio.Event) -> Record:
        seed = derive_seed(self.seed, task.task_id, rollout_idx)
        user = None
        try:
            user = self.user_factory(task, seed)
            result = await self._simulate_in_time(user, seed, stop)
            faults, measures = await _audit(task, result)
        except Exception as error:  # of foreign code: a user factory, a user that is none
            text = f"{type(error).__name__}: {error}"
            result = RolloutResult([], [], TerminationReason.ERROR, error=text)
            faults, measures = await _audit(task, result)
        persona = getattr(user, "persona", None)
        return Record(
            task.task_id,
            rollout_idx,
            result,
            faults,
            task.single_turn_prompt,
            self.assistant.name,
            getattr(user, "name", ""),
            getattr(user, "prompt_hash", ""),
            ", ".join(persona.traits) if isinstance(persona, Persona) else str(persona or ""),
            self.shared_time,
            measures,
        )

    async def _simulate_in_time(
        self, user: UserModel, seed: int, stop: asyncio.Event
    ) -> RolloutResult:
        try:
            async with asyncio.timeout(self.deadline_s):
                return await self._simulate(user, seed, stop)
        except TimeoutError:
            text = f"it took over {self.deadline_s:g} s"
            return RolloutResult([], [], TerminationReason.ERROR, error=text)

    async def _simulate(self, user: UserModel, seed: int, stop: asyncio.Event) -> RolloutResult:
        prefix: list[Message] = []
        if self.system_prompt:
            prefix = [{"role": "system", "content": self.system_prompt}]
        simulator = ChatSimulator(self.assistant, user, self.token_budget)
        return await simulator.arollout(
            prefix, self.max_turns, seed=seed, stop=stop, keep_errors=True
        )


async def _audit(task: Task, result: RolloutResult) -> tuple[dict[str, bool], dict[str, float]]:
    """Return the user's faults, and how it talks."""

    def audit() -> tuple[dict[str, bool], dict[str, float]]:
        goal, facts = task.single_turn_prompt, task.facts
        faults = audit_conversation(
            result.messages,
            goal,
            facts=facts,
            user_turns=result.user_turns,
            opening=task.opening,
        )
        return faults, measure_user(result.messages, goal, facts)

    return await run_blocking(audit) if uses_encoder(task.facts) else audit()


class _Breaker:
    """Tells when going on is no use: all fail in one way, or too many by unexpected errors."""

    def __init__(self, max_errors: float) -> None:
        self.latest: deque[str] = deque(maxlen=_BREAKER)
        self.max_errors, self.num_errors = max(max_errors, _MIN_ERRORS - 1), 0
        self.why = ""

    def add(self, result: RolloutResult) -> bool:
        """Take note of an ending; True if the batch should stop."""
        reason = result.termination_reason
        if reason is TerminationReason.CANCELLED:
            return False
        self.latest.append(str(reason) if reason.is_failure else "")
        self.num_errors += reason is TerminationReason.ERROR
        last = f"the last error: {result.error[:300]}" if result.error else "see the transcripts"
        if len(self.latest) == _BREAKER and self.latest[0] and len(set(self.latest)) == 1:
            self.why = f"The last {_BREAKER} conversations all ended as {reason}; {last}"
        elif self.num_errors > self.max_errors:
            self.why = f"{self.num_errors} conversations ended by an unexpected error; {last}"
        return bool(self.why)


def _stream(
    batch: _Batch,
    jobs: Sequence[tuple[Task, int]],
    concurrency: int,
    writer: TranscriptWriter | None,
    ledger: UsageLedger | None,
    progress: bool,
    breaker: _Breaker,
) -> Iterator[Record]:
    """Run the jobs on the background loop, record what ends, and hand it out."""
    bar = _ProgressBar(len(jobs), ledger, progress)
    audits = AuditRates()

    def produce(finish: Callable[[Record], None]) -> Coroutine[None, None, None]:
        return _run_jobs(batch, jobs, concurrency, finish, breaker)

    records = stream(produce)
    try:
        for record in records:
            if record.result.termination_reason is not TerminationReason.CANCELLED:
                if writer:
                    writer.write(record.to_json())
                audits.add(record.audit, record.user_measures)
            bar.update(record)
            yield record
        if breaker.why:
            raise IncompleteRunError(f"{breaker.why}.")
    finally:
        records.close()
        bar.close(audits)
        if writer:
            writer.close()


async def _run_jobs(
    batch: _Batch,
    jobs: Sequence[tuple[Task, int]],
    concurrency: int,
    finish: Callable[[Record], None],
    breaker: _Breaker,
) -> None:
    stop = asyncio.Event()
    waiting = iter(jobs)

    async def work() -> None:
        for task, rollout_idx in waiting:
            if stop.is_set():
                return
            record = await batch.converse(task, rollout_idx, stop)
            finish(record)
            if breaker.add(record.result):
                stop.set()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(jobs))):
            group.create_task(work())


class _ProgressBar:
    """A bar with conversations per minute, tokens per second and the running cost."""

    def __init__(self, total: int, ledger: UsageLedger | None, shown: bool) -> None:
        self.bar = tqdm(total=total, desc="Conversations", unit="conv", disable=not shown)
        self.ledger, self.tokens, self.started = ledger, 0, time.perf_counter()
        self.reasons: Counter[str] = Counter()
        self.num_cut = 0

    def update(self, record: Record) -> None:
        self.tokens += record.result.usage.get("completion_tokens", 0)
        self.reasons[str(record.result.termination_reason)] += 1
        self.num_cut += record.result.num_cut
        seconds = time.perf_counter() - self.started
        facts = {
            "conv/min": f"{60 * sum(self.reasons.values()) / seconds:.1f}",
            "tok/s": f"{self.tokens / seconds:.0f}",
        }
        if self.ledger:
            facts["cost"] = f"${self.ledger.cost_usd:.4f}"
        self.bar.set_postfix(facts, refresh=False)
        self.bar.update()

    def close(self, audits: AuditRates) -> None:
        self.bar.close()
        if not self.bar.disable and self.reasons:
            endings = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
            tqdm.write(
                f"Endings: {endings}. Replies cut by the token limit: {self.num_cut}. {audits}"
            )
