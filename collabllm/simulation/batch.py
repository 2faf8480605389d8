"""Many simulated conversations at once: bounded, seeded, recorded, resumable."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from collabllm import __version__
from collabllm.event_loop import stream
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.audit import audit_conversation, audit_rates
from collabllm.simulation.endings import FAILURES, TerminationReason
from collabllm.simulation.simulator import ChatSimulator, RolloutResult, derive_seed
from collabllm.simulation.transcripts import TranscriptWriter
from collabllm.simulation.user_models import UserModel, UserTurnResult
from collabllm.tasks import Task

_LIBRARIES = ("openai", "torch", "transformers")

UserFactory = Callable[[Task, int], UserModel]
"""Makes the user of one conversation from its task and a seed."""


@dataclass(frozen=True)
class Record:
    """One conversation of a batch: which one it is, how it went, and what made it."""

    task_id: str
    rollout_idx: int
    result: RolloutResult
    audit: dict[str, bool]
    goal: str
    assistant: str
    user: str
    prompt_hash: str

    def to_json(self) -> dict[str, Any]:
        """Return the line of a transcript file."""
        result = asdict(self.result)
        return {
            "task_id": self.task_id,
            "rollout_idx": self.rollout_idx,
            "single_turn_prompt": self.goal,
            **result,
            "termination_reason": str(self.result.termination_reason),
            "terminated_by_user": self.result.terminated_by_user,
            "failed": self.result.termination_reason in FAILURES,
            "audit": self.audit,
            "assistant": self.assistant,
            "user": self.user,
            "prompt_hash": self.prompt_hash,
            "versions": {"collabllm": __version__, **{n: version(n) for n in _LIBRARIES}},
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Record":
        """Read a line of a transcript file back."""
        result = RolloutResult(
            line["messages"],
            [UserTurnResult(**turn) for turn in line["user_turns"]],
            TerminationReason(line["termination_reason"]),
            line["usage"],
            line["timings"],
            line["seeds"],
            line["error"],
        )
        return cls(
            line["task_id"],
            line["rollout_idx"],
            result,
            line["audit"],
            line["single_turn_prompt"],
            line["assistant"],
            line["user"],
            line["prompt_hash"],
        )


def simulate(
    tasks: Sequence[Task],
    assistant: Assistant,
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
) -> Iterator[Record]:
    """Simulate every task `num_rollouts` times, and yield each conversation when it ends.

    Seeds derive from (seed, task, rollout, turn): where the backends honour them, results depend
    neither on order nor on concurrency. Closing the iterator, or Ctrl-C, stops the rest; what has
    ended is in `output` by then.

    Args:
        tasks: What the conversations are about.
        assistant: Answers them all.
        user_factory: Makes a conversation's user from (task, seed).
        max_turns: Most simulated user messages of each.
        num_rollouts: Conversations a task.
        concurrency: Most conversations at once.
        seed: Of the whole batch.
        output: JSONL file to append records to.
        resume: Go on with `output`: finished ones are passed over, failed ones run again.
        token_budget: Most tokens of the assistant in one conversation.
        system_prompt: First message of every conversation.
        ledger: For the running cost; its limit stops the batch.
        progress: Show a bar with conversations a minute, tokens a second and cost.

    Raises:
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
        if not writer or (task.task_id, rollout_idx) not in writer.done
    ]
    batch = _Batch(assistant, user_factory, max_turns, token_budget, seed, system_prompt)
    return _stream(batch, jobs, concurrency, writer, ledger, progress)


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

    async def converse(self, task: Task, rollout_idx: int, stop: asyncio.Event) -> Record:
        seed = derive_seed(self.seed, task.task_id, rollout_idx)
        user = self.user_factory(task, seed)
        simulator = ChatSimulator(self.assistant, user, self.token_budget)
        prefix = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        result = await simulator.arollout(prefix, self.max_turns, seed=seed, stop=stop)  # type: ignore[arg-type]
        goal = task.single_turn_prompt
        return Record(
            task.task_id,
            rollout_idx,
            result,
            audit_conversation(result.messages, goal),
            goal,
            self.assistant.name,
            user.name,
            user.prompt_hash,
        )


def _stream(
    batch: _Batch,
    jobs: Sequence[tuple[Task, int]],
    concurrency: int,
    writer: TranscriptWriter | None,
    ledger: UsageLedger | None,
    progress: bool,
) -> Iterator[Record]:
    """Run the jobs on the background loop, record what ends, and hand it out."""
    bar = _ProgressBar(len(jobs), ledger, progress)
    audits = []

    def produce(finish: Callable[[Record], None]) -> Coroutine[Any, Any, None]:
        return _run_jobs(batch, jobs, concurrency, finish)

    records = stream(produce)
    try:
        for record in records:
            if record.result.termination_reason is not TerminationReason.CANCELLED:
                if writer:
                    writer.write(record.to_json())
                audits.append(record.audit)
            bar.update(record)
            yield record
    finally:
        records.close()
        bar.close(audit_rates(audits))
        if writer:
            writer.close()


async def _run_jobs(
    batch: _Batch,
    jobs: Sequence[tuple[Task, int]],
    concurrency: int,
    finish: Callable[[Record], None],
) -> None:
    stop = asyncio.Event()
    waiting = iter(jobs)

    async def work() -> None:
        for task, rollout_idx in waiting:
            if stop.is_set():
                return
            finish(await batch.converse(task, rollout_idx, stop))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(jobs))):
            group.create_task(work())


class _ProgressBar:
    """A bar with conversations a minute, tokens a second and the running cost."""

    def __init__(self, total: int, ledger: UsageLedger | None, shown: bool) -> None:
        self.bar = tqdm(total=total, desc="Conversations", unit="conv", disable=not shown)
        self.ledger, self.tokens, self.started = ledger, 0, time.perf_counter()
        self.reasons: Counter[str] = Counter()

    def update(self, record: Record) -> None:
        self.tokens += record.result.usage["completion_tokens"]
        self.reasons[str(record.result.termination_reason)] += 1
        seconds = time.perf_counter() - self.started
        facts = {
            "conv/min": f"{60 * sum(self.reasons.values()) / seconds:.1f}",
            "tok/s": f"{self.tokens / seconds:.0f}",
        }
        if self.ledger:
            facts["cost"] = f"${self.ledger.cost_usd:.4f}"
        self.bar.set_postfix(facts, refresh=False)
        self.bar.update()

    def close(self, rates: dict[str, float]) -> None:
        self.bar.close()
        if not self.bar.disable and self.reasons:
            endings = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
            faults = ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items())
            tqdm.write(f"Endings: {endings}. Simulator audit: {faults}.")
