"""Multiturn-aware rewards: a reply is worth what the conversation after it comes to.

Source: arXiv:2502.00640, section 3.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from collabllm.data_processing.confidence import Posterior, VariancePool
from collabllm.errors import CostLimitError
from collabllm.event_loop import run
from collabllm.messages import Message, to_chat
from collabllm.rewards.registry import MetricTools, check_metrics
from collabllm.rewards.scoring import (
    NO_REPLY,
    Future,
    RewardSettings,
    combine,
    score_rollout,
    to_floor,
)
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.batch import UserFactory
from collabllm.simulation.simulator import ChatSimulator, derive_seed
from collabllm.tasks import Task

__all__ = [
    "Future",
    "RewardEstimate",
    "RewardSettings",
    "combine",
    "estimate_rewards",
    "multiturn_reward",
]

_SURE = 0.95  # P(the best is above the worst) at which no more futures are drawn


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
        token_penalty: Penalty per assistant token, capped at 1 in total.
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
    cut: Sequence[bool] = (),
    pool: VariancePool | None = None,
) -> list[RewardEstimate]:
    """Reward the candidates of one turn, all futures at once, with the same user seeds for each.

    An empty reply, and one that a limit cut, gets the floor and no futures.

    Args:
        replies: The candidates.
        context: As in `multiturn_reward`.
        task: As in `multiturn_reward`.
        assistant: As in `multiturn_reward`.
        user_factory: As in `multiturn_reward`.
        settings: Weights, window and samples. While the `budget` lasts, the present best and worst
            reply get one more future each round, until the posterior says that their order is sure.
        tools: As in `multiturn_reward`.
        seed: Seed of the turn.
        cut: For each reply, whether a limit cut it; none is by default.
        pool: Spread of futures over the whole run; each turn adds to it.

    Returns:
        One estimate per reply, in their order.

    Raises:
        ValueError: If a metric is unknown or lacks what it needs.
        CostLimitError: If the cost limit is reached.
    """
    tools = tools or MetricTools()
    if tools.count_tokens is None:
        tools = replace(tools, count_tokens=assistant.count_tokens)
    check_metrics(settings.weights, tools)
    sampler = _Sampler(context, task, assistant, user_factory, settings, tools, seed)
    is_cut = list(cut) or [False] * len(replies)
    whole = [bool(r.strip()) and not c for r, c in zip(replies, is_cut, strict=True)]
    estimates = await asyncio.gather(
        *(sampler.first(reply, good) for reply, good in zip(replies, whole, strict=True))
    )
    pool = pool if pool is not None else VariancePool()
    contested = [idx for idx, good in enumerate(whole) if good]
    if settings.window and settings.budget and len(contested) > 1:
        await _spend_budget(estimates, contested, sampler, pool)
    pool.add([estimates[idx].rewards for idx in contested])
    return estimates


async def _spend_budget(
    estimates: list[RewardEstimate],
    contested: Sequence[int],
    sampler: "_Sampler",
    pool: VariancePool,
) -> None:
    """Give the present best and worst one more future each, until sure or out of budget."""
    left = sampler.settings.budget
    while left >= 2:
        posterior = Posterior.of_turn([estimates[idx].rewards for idx in contested], pool)
        best, worst = posterior.best_and_worst()
        if posterior.p_above(best, worst) >= _SURE:
            return
        pair = [contested[best], contested[worst]]
        more = await asyncio.gather(*(sampler.more(estimates[idx]) for idx in pair))
        for idx, grown in zip(pair, more, strict=True):
            estimates[idx] = grown
        left -= len(pair)


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

    async def first(self, reply: str, is_whole: bool) -> RewardEstimate:
        """Return the first futures of a reply, or the floor where it is empty or cut."""
        if not is_whole:
            return RewardEstimate(reply, [to_floor(self._prefix(reply), NO_REPLY, self.settings)])
        futures = (self._future(reply, idx) for idx in range(self.settings.num_futures))
        return RewardEstimate(reply, list(await asyncio.gather(*futures)))

    async def more(self, estimate: RewardEstimate) -> RewardEstimate:
        """Return an estimate with one more future."""
        future = await self._future(estimate.reply, len(estimate.futures))
        return replace(estimate, futures=[*estimate.futures, future])

    def _prefix(self, reply: str) -> list[Message]:
        return [*to_chat(self.context), Message(role="assistant", content=reply)]

    async def _future(self, reply: str, idx: int) -> Future:
        seed = derive_seed(self.seed, "future", idx)
        simulator = ChatSimulator(self.assistant, self.user_factory(self.task, seed))
        stop = asyncio.Event()
        result = await simulator.arollout(
            self._prefix(reply), self.settings.window, seed=seed, stop=stop
        )
        if stop.is_set():
            raise CostLimitError(result.error)
        return await score_rollout(result, self.task, self.settings, self.tools, seed)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
