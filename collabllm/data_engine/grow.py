"""Grow conversations: rewarded candidates for every turn, the best of which goes on."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from collabllm.data_engine.turn_groups import Candidate, GrowthSettings, TurnGroup
from collabllm.data_processing.confidence import VariancePool
from collabllm.errors import CostLimitError, SimulationError
from collabllm.event_loop import stream
from collabllm.messages import Message, to_valid_text, with_system_prompt
from collabllm.rewards.multiturn import Future, RewardEstimate, estimate_rewards
from collabllm.rewards.registry import MetricTools
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.batch import UserFactory
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.simulator import derive_seed
from collabllm.simulation.user_models import UserTurnResult
from collabllm.tasks import Task

_MAX_ERRORS = 3  # unexpected ones; the next ends the build
_SENTENCE_END = re.compile(r"[.!?\u2026](?:[\"')\]*_]*)(?=\s|$)")

Contexts = Mapping[str, Sequence[Message]]


def grow_conversations(
    tasks: Sequence[Task],
    assistant: Assistant,
    user_factory: UserFactory,
    settings: GrowthSettings,
    *,
    tools: MetricTools | None = None,
    contexts: Contexts | None = None,
    concurrency: int = 16,
) -> Iterator[TurnGroup]:
    """Grow a conversation for every task, and yield each turn when it is rewarded.

    All runs at once: tasks, candidates, futures and metrics wait only for what they need. Seeds
    derive from (seed, task, turn, candidate or future).

    Args:
        tasks: What the conversations are about.
        assistant: Writes candidates and futures.
        user_factory: Makes a user from (task, seed).
        settings: Settings of growth and reward.
        tools: For metrics that need more than the assistant's tokenizer.
        contexts: By task id, the conversation so far of one to go on with, up to a user message.
        concurrency: Most tasks under way at once.

    Raises:
        CostLimitError: After the turns under way, if the cost limit is reached.
        ValueError: If two tasks have one id, which would mix their rows and seeds.
    """
    _check_ids(tasks)
    builder = _Builder(assistant, user_factory, settings, tools)

    def produce(hand_out: Callable[[TurnGroup], None]) -> Coroutine[Any, Any, None]:
        return builder.run(tasks, contexts or {}, concurrency, hand_out)

    return stream(produce)


class _Builder:
    """Grows many conversations with one assistant."""

    def __init__(
        self,
        assistant: Assistant,
        user_factory: UserFactory,
        settings: GrowthSettings,
        tools: MetricTools | None,
    ) -> None:
        self.assistant, self.user_factory = assistant, user_factory
        self.settings, self.tools = settings, tools
        self.pool = VariancePool()
        self.over_budget: CostLimitError | None = None
        self.num_errors = 0

    async def run(
        self,
        tasks: Sequence[Task],
        contexts: Contexts,
        concurrency: int,
        hand_out: Callable[[TurnGroup], None],
    ) -> None:
        waiting = iter(tasks)

        async def work() -> None:
            for task in waiting:
                if self.over_budget:
                    return
                await self.grow(task, contexts.get(task.task_id, ()), hand_out)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(tasks))):
                group.create_task(work())
        if self.over_budget:
            raise self.over_budget

    async def grow(
        self, task: Task, context: Sequence[Message], hand_out: Callable[[TurnGroup], None]
    ) -> None:
        """Grow one conversation; an error ends it as a failure, too many unexpected ones all."""
        prompt = list(context)
        while not self.over_budget:
            try:
                if not prompt:
                    first = await self._ask_user(task, [])
                    prompt = [Message(role="user", content=first.response)]
                group = await self._turn(task, prompt)
            except CostLimitError as error:
                self.over_budget = error
                return
            except SimulationError as error:
                group = _failed(task, prompt, error)
            except Exception as error:  # of foreign code: a user, an assistant, a metric
                self.num_errors += 1
                if self.num_errors > _MAX_ERRORS:
                    raise
                group = _failed(task, prompt, error)
            hand_out(group)
            if group.next_user is None:
                return
            reply = group.candidates[group.chosen].estimate.reply
            prompt = [
                *prompt,
                Message(role="assistant", content=reply),
                Message(role="user", content=group.next_user),
            ]

    async def _ask_user(self, task: Task, context: Sequence[Message]) -> UserTurnResult:
        seed = derive_seed(self.settings.seed, task.task_id, "user", len(context))
        turn = await self.user_factory(task, seed).agenerate(context, seed=seed)
        if not context and turn.is_terminal:
            raise SimulationError("the simulated user left before any reply")
        if not turn.response.strip() and not turn.is_terminal:
            raise SimulationError("the simulated user said nothing")
        return replace(turn, response=to_valid_text(turn.response))

    async def _turn(self, task: Task, prompt: list[Message]) -> TurnGroup:
        settings = self.settings
        seed = derive_seed(settings.seed, task.task_id, len(prompt))
        lost: dict[str, int] = {}
        replies = await self._write_candidates(prompt, seed, lost)
        estimates = await estimate_rewards(
            list(replies),
            with_system_prompt(prompt, settings.system_prompt),
            task,
            self.assistant,
            self.user_factory,
            settings.reward,
            tools=self.tools,
            seed=seed,
            pool=self.pool,
        )
        candidates = []
        for estimate in estimates:
            idx = replies[estimate.reply]
            if estimate.value is None:
                _count(lost, f"no reward: {_why_missing(estimate.futures)}")
            else:
                candidates.append(Candidate(idx, settings.is_proactive(idx), estimate))
        if not candidates:
            return TurnGroup(task, prompt, [], lost=lost)
        chosen = max(range(len(candidates)), key=lambda i: candidates[i].estimate.value or 0.0)
        next_user, reason = await self._go_on(task, prompt, candidates[chosen].estimate, seed)
        return TurnGroup(task, prompt, candidates, chosen, next_user, reason, lost)

    async def _write_candidates(
        self, prompt: list[Message], seed: int, lost: dict[str, int]
    ) -> dict[str, int]:
        """Return different replies and the position of each; count what is lost."""
        settings = self.settings
        outcomes = await asyncio.gather(
            *(
                self.assistant.agenerate(
                    with_system_prompt(
                        prompt,
                        settings.proactive_prompt
                        if settings.is_proactive(idx)
                        else settings.system_prompt,
                    ),
                    seed=derive_seed(seed, "candidate", idx),
                )
                for idx in range(settings.num_candidates)
            ),
            return_exceptions=True,
        )
        replies: dict[str, int] = {}
        for idx, outcome in enumerate(outcomes):
            if isinstance(outcome, BaseException):
                if isinstance(outcome, CostLimitError) or not isinstance(outcome, SimulationError):
                    raise outcome
                _count(lost, f"{type(outcome).__name__}: {outcome}")
                continue
            is_cut = outcome.finish_reason == "length"
            text = to_last_sentence(outcome.text) if is_cut else outcome.text
            if is_cut and not (text and settings.keep_cut_replies):
                _count(lost, "cut by the token limit")
            elif not text.strip():
                _count(lost, "empty reply")
            elif text in replies:
                _count(lost, "same as another candidate")
            else:
                replies[text] = idx
        return replies

    async def _go_on(
        self, task: Task, prompt: list[Message], best: RewardEstimate, seed: int
    ) -> tuple[str | None, str]:
        """Return the next user message, or None and why the conversation ended."""
        if (len(prompt) + 1) // 2 >= self.settings.max_turns:
            return None, str(TerminationReason.MAX_TURNS)
        if self.settings.reward.window:
            return _take_from_future(best, len(prompt), seed)
        reply = Message(role="assistant", content=best.reply)
        turn = await self._ask_user(task, [*prompt, reply])
        if not turn.is_terminal:
            return turn.response, ""
        gave_up = TerminationReason.USER_GAVE_UP
        return None, str(gave_up if turn.gave_up else TerminationReason.USER_SATISFIED)


def _take_from_future(best: RewardEstimate, num_prompt: int, seed: int) -> tuple[str | None, str]:
    """Go on as one of the best reply's rewarded futures does: [prompt, reply, next user, ...]."""
    usable = [future for future in best.futures if future.reward is not None]
    future = random.Random(seed).choice(usable)
    spoken = [message for message in future.messages if message["role"] != "system"]
    if len(spoken) == num_prompt + 1:
        return None, str(future.termination_reason)
    return spoken[num_prompt + 1]["content"], ""


def _failed(task: Task, prompt: list[Message], error: Exception) -> TurnGroup:
    return TurnGroup(task, prompt, [], lost={f"{type(error).__name__}: {error}": 1})


def to_last_sentence(text: str) -> str:
    """Return a cut text up to its last whole sentence; "" where there is none."""
    ends = list(_SENTENCE_END.finditer(text))
    return text[: ends[-1].end()].rstrip() if ends else ""


def _check_ids(tasks: Sequence[Task]) -> None:
    counts = Counter(task.task_id for task in tasks)
    double = sorted(task_id for task_id, number in counts.items() if number > 1)
    if double:
        raise ValueError(
            f"{len(double)} task ids are used twice ({', '.join(double[:5])}); every task needs a "
            "'task_id' of its own, or none."
        )


def _why_missing(futures: Sequence[Future]) -> str:
    for future in futures:
        for value in future.metrics.values():
            if value.value is None and value.applicable:
                return value.reason
    return "unknown"


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1
