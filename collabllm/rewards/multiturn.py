"""Multiturn-aware rewards: a reply is worth what the conversation after it comes to.

Source: arXiv:2502.00640, section 3.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from collabllm.data_processing.confidence import p_better
from collabllm.errors import CostLimitError
from collabllm.event_loop import run
from collabllm.messages import Message, to_chat
from collabllm.rewards.metrics.text import count_assistant_tokens
from collabllm.rewards.registry import MetricTools, MetricValue, check_metrics, score_conversation
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.batch import UserFactory
from collabllm.simulation.endings import FAILURES, TerminationReason
from collabllm.simulation.simulator import ChatSimulator, RolloutResult, derive_seed
from collabllm.tasks import Task

_UNDECIDED = 0.1


@dataclass(frozen=True)
class RewardSettings:
    """How a reply is rewarded: R = sum of weight x metric - min(token_penalty x tokens, 1).

    `weights` are by metric name; `token_penalty` is a token of the assistant in the whole
    conversation; `window` counts the user messages that are simulated after the reply, 0 for none;
    `num_samples` counts futures; `budget` is how many more a turn may use for undecided pairs.
    """

    weights: Mapping[str, float]
    token_penalty: float = 0.0
    window: int = 2
    num_samples: int = 3
    budget: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: If one is out of range, or there is nothing to weigh.
        """
        if not self.weights and not self.token_penalty:
            raise ValueError("weights must name at least one metric.")
        if not all(math.isfinite(weight) for weight in self.weights.values()):
            raise ValueError(f"weights must be finite, got {dict(self.weights)}.")
        for name, least in (("window", 0), ("num_samples", 1), ("budget", 0), ("token_penalty", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    @property
    def num_futures(self) -> int:
        """Futures a reply at first; one is enough where nothing is simulated."""
        return self.num_samples if self.window else 1


@dataclass(frozen=True)
class Future:
    """One way in which a conversation went on after a reply.

    `reward` is None where the simulation failed or a weighted metric is missing; `num_tokens` are
    the assistant's.
    """

    messages: list[Message]
    termination_reason: TerminationReason
    metrics: dict[str, MetricValue]
    num_tokens: int
    reward: float | None
    seed: int


@dataclass(frozen=True)
class RewardEstimate:
    """The reward of a reply: mean over the futures that have one, and its standard error.

    `value` is None where no future has a reward, `standard_error` where fewer than two have.
    """

    reply: str
    futures: list[Future] = field(default_factory=list)

    @property
    def rewards(self) -> list[float | None]:
        """The reward of each future."""
        return [future.reward for future in self.futures]

    @property
    def value(self) -> float | None:
        """Mean reward."""
        return _mean(self.rewards)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean."""
        known = [reward for reward in self.rewards if reward is not None]
        if len(known) < 2:
            return None
        mean = sum(known) / len(known)
        variance = sum((reward - mean) ** 2 for reward in known) / (len(known) - 1)
        return math.sqrt(variance / len(known))

    @property
    def means(self) -> dict[str, float | None]:
        """Mean of each metric over the futures in which it has a value."""
        names = dict.fromkeys(name for future in self.futures for name in future.metrics)
        return {name: _mean([f.metrics[name].value for f in self.futures]) for name in names}

    @property
    def num_missing(self) -> int:
        """Futures without a reward."""
        return sum(reward is None for reward in self.rewards)


def multiturn_reward(
    reply: str,
    context: Sequence[Message],
    task: Task,
    assistant: Assistant,
    user_factory: UserFactory,
    *,
    weights: Mapping[str, float],
    window: int = 2,
    num_samples: int = 3,
    token_penalty: float = 0.0,
    tools: MetricTools | None = None,
    seed: int = 0,
) -> RewardEstimate:
    """Reward one reply by the mean over its sampled futures.

    Args:
        reply: The candidate.
        context: The conversation up to the user message that it answers; unchanged.
        task: What the user wants.
        assistant: Writes the replies of the futures.
        user_factory: Makes the user of a future from (task, seed).
        weights: Weight of each metric, by name.
        window: User messages simulated after the reply; 0 rewards the conversation as it is.
        num_samples: Futures.
        token_penalty: Reward lost a token of the assistant, at most 1 in all.
        tools: For metrics that need more than the assistant's tokenizer.
        seed: Replies with one seed meet the same users.

    Raises:
        ValueError: If a setting does not fit.
        CostLimitError: If the cost limit is reached.
    """
    settings = RewardSettings(weights, token_penalty, window, num_samples)
    (estimate,) = run(
        estimate_rewards(
            [reply], context, task, assistant, user_factory, settings, tools=tools, seed=seed
        )
    )
    return estimate


async def estimate_rewards(
    replies: Sequence[str],
    context: Sequence[Message],
    task: Task,
    assistant: Assistant,
    user_factory: UserFactory,
    settings: RewardSettings,
    *,
    tools: MetricTools | None = None,
    seed: int = 0,
) -> list[RewardEstimate]:
    """Reward the candidates of one turn, all futures at once, with the same user seeds for each.

    Args:
        replies: The candidates.
        context: As in `multiturn_reward`.
        task: As in `multiturn_reward`.
        assistant: As in `multiturn_reward`.
        user_factory: As in `multiturn_reward`.
        settings: Weights, window and samples. With a `budget`, replies of a pair that is undecided
            (0.1 < P(first is better) < 0.9) get more futures, one a round, while it lasts.
        tools: As in `multiturn_reward`.
        seed: Of the turn.

    Returns:
        One estimate a reply, in their order.

    Raises:
        ValueError: If a metric is unknown or lacks what it needs.
        CostLimitError: If the cost limit is reached.
    """
    tools = tools or MetricTools()
    if tools.count_tokens is None:
        tools = replace(tools, count_tokens=assistant.count_tokens)
    check_metrics(settings.weights, tools)
    sampler = _Sampler(context, task, assistant, user_factory, settings, tools, seed)
    first = range(settings.num_futures)
    futures = await asyncio.gather(*(sampler.sample(reply, first) for reply in replies))
    estimates = [RewardEstimate(r, found) for r, found in zip(replies, futures, strict=True)]
    budget = settings.budget if settings.window else 0
    while budget and (undecided := _undecided(estimates)[:budget]):
        budget -= len(undecided)
        more = await asyncio.gather(
            *(sampler.sample(estimates[i].reply, [len(estimates[i].futures)]) for i in undecided)
        )
        for i, found in zip(undecided, more, strict=True):
            estimates[i] = replace(estimates[i], futures=[*estimates[i].futures, *found])
    return estimates


def _undecided(estimates: Sequence[RewardEstimate]) -> list[int]:
    """Return the replies of undecided pairs, fewest futures first; equal rewards are a tie."""
    found: set[int] = set()
    for i, first in enumerate(estimates):
        for j in range(i + 1, len(estimates)):
            second = estimates[j]
            if first.rewards != second.rewards and (
                _UNDECIDED < p_better(first.rewards, second.rewards) < 1 - _UNDECIDED
            ):
                found |= {i, j}
    return sorted(found, key=lambda i: (len(estimates[i].futures), i))


@dataclass(frozen=True)
class _Sampler:
    """Draws futures of one turn's replies."""

    context: Sequence[Message]
    task: Task
    assistant: Assistant
    user_factory: UserFactory
    settings: RewardSettings
    tools: MetricTools
    seed: int

    async def sample(self, reply: str, positions: Sequence[int]) -> list[Future]:
        return list(await asyncio.gather(*(self._future(reply, idx) for idx in positions)))

    async def _future(self, reply: str, idx: int) -> Future:
        seed = derive_seed(self.seed, "future", idx)
        prefix = [*to_chat(self.context), Message(role="assistant", content=reply)]
        simulator = ChatSimulator(self.assistant, self.user_factory(self.task, seed))
        stop = asyncio.Event()
        result = await simulator.arollout(prefix, self.settings.window, seed=seed, stop=stop)
        if stop.is_set():
            raise CostLimitError(result.error)
        return await self._score(result, seed)

    async def _score(self, result: RolloutResult, seed: int) -> Future:
        failed = result.termination_reason in FAILURES
        metrics: dict[str, MetricValue] = {
            name: MetricValue(None, f"the conversation ended as {result.termination_reason}")
            for name in self.settings.weights
        }
        if not failed:
            names = list(self.settings.weights)
            metrics = await score_conversation(result.messages, self.task, names, self.tools)
        num_tokens = count_assistant_tokens(result.messages, self.tools)
        return Future(
            result.messages,
            result.termination_reason,
            metrics,
            num_tokens,
            None if failed else combine(metrics, num_tokens, self.settings),
            seed,
        )


def combine(
    metrics: Mapping[str, MetricValue], num_tokens: int, settings: RewardSettings
) -> float | None:
    """Weigh the metrics of one conversation; None if a weighted one is missing.

    A metric that does not apply to the task adds nothing, to any of its replies.
    """
    total = 0.0
    for name, weight in settings.weights.items():
        metric = metrics[name]
        if metric.value is not None:
            total += weight * metric.value
        elif metric.applicable and weight:
            return None
    return total - min(settings.token_penalty * num_tokens, 1.0)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
