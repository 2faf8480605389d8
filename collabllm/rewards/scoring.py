"""What one finished conversation is worth: weighted metrics, a token penalty, a floor for silence.

Source: arXiv:2502.00640, section 3.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from collabllm.messages import Message
from collabllm.rewards.metrics.text import count_assistant_tokens
from collabllm.rewards.registry import (
    MetricTools,
    MetricValue,
    find_specs,
    registered,
    score_conversation,
)
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.simulator import RolloutResult
from collabllm.tasks import Task

DEFAULT_WEIGHTS: Mapping[str, float] = {
    "facts_elicited": 1.0,
    "facts_used": 0.5,
    "over_asking": -0.5,
}
"""What is asked for, what is done with it, and a price for needless questions."""
NO_REPLY = "no_reply"
"""Why a reply got the floor and no futures: it was empty, cut by the token limit, or a repeat."""


@dataclass(frozen=True)
class RewardSettings:
    """How a reply is rewarded: R = sum of weight x metric - min(token_penalty x tokens, 1).

    `weights` are by metric name; `token_penalty` is per token of the assistant in the whole
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
            ValueError: If one is out of range, or nothing is paid for.
        """
        if not self.weights:
            raise ValueError("weights must name at least one metric.")
        if not all(math.isfinite(weight) for weight in self.weights.values()):
            raise ValueError(f"weights must be finite, got {dict(self.weights)}.")
        if not any(weight > 0 for weight in self.weights.values()):
            raise ValueError(
                f"weights must have one above 0, got {dict(self.weights)}: penalties alone pay "
                "silence, so add a metric that work raises."
            )
        for name, least in (("window", 0), ("num_samples", 1), ("budget", 0), ("token_penalty", 0)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise ValueError(f"{name} must be at least {least}, got {value}.")

    @property
    def num_futures(self) -> int:
        """Futures per reply at first; one is enough where nothing is simulated."""
        return self.num_samples if self.window else 1

    @property
    def floor(self) -> float:
        """The lowest reward there is: each metric at its worse limit, the penalty in full.

        A metric without a limit on its worse side counts as -1, as the token penalty does.
        """
        return sum(map(_worst, self.weights, self.weights.values())) - (self.token_penalty > 0)


def _worst(name: str, weight: float) -> float:
    spec = find_specs(name)[-1]
    limit = spec.lowest if weight > 0 else spec.highest
    if not weight:
        return 0.0
    return weight * limit if limit is not None else -1.0


@dataclass(frozen=True)
class Future:
    """One way in which a conversation went on after a reply.

    `reward` is None where the simulation failed or a weighted metric is missing; `num_tokens` are
    the assistant's.
    """

    messages: list[Message]
    termination_reason: TerminationReason | str
    metrics: dict[str, MetricValue]
    num_tokens: int
    reward: float | None
    seed: int


async def score_rollout(
    result: RolloutResult, task: Task, settings: RewardSettings, tools: MetricTools, seed: int
) -> Future:
    """Score a finished conversation.

    One that failed by a server or by the simulated user is missing, and so is one in which the
    user told something wrongly. One that the assistant ended by saying nothing gets the floor:
    silence is the worst that it can do.
    """
    names = list(settings.weights)
    num_tokens = count_assistant_tokens(result.messages, tools)
    reason = result.termination_reason
    if result.why_unscored:
        metrics = dict.fromkeys(names, MetricValue(None, result.why_unscored))
        return Future(result.messages, reason, metrics, num_tokens, None, seed)
    if reason is TerminationReason.ASSISTANT_EMPTY:
        return to_floor(result.messages, reason, settings, num_tokens, seed)
    metrics = await score_conversation(result.messages, task, names, tools)
    reward = combine(metrics, num_tokens, settings)
    return Future(result.messages, reason, metrics, num_tokens, reward, seed)


def to_floor(
    messages: list[Message],
    reason: TerminationReason | str,
    settings: RewardSettings,
    num_tokens: int = 0,
    seed: int = 0,
) -> Future:
    """Return the future of a reply that is none: the floor, and no value for any metric."""
    none = MetricValue(None, f"the assistant said nothing whole ({reason})", applicable=False)
    metrics = dict.fromkeys(settings.weights, none)
    return Future(messages, reason, metrics, num_tokens, settings.floor, seed)


def combine(
    metrics: Mapping[str, MetricValue], num_tokens: int, settings: RewardSettings
) -> float | None:
    """Weigh the metrics of one conversation; None if a weighted one is missing.

    A metric that does not apply to the task adds nothing, to any of its replies. One without a
    limit on its worse side takes off 1 at most, as the token penalty does: else long honest work
    would be worth less than silence, which gets the floor.
    """
    without_limit = {
        name
        for name, spec in registered(settings.weights).items()
        if (spec.lowest if settings.weights[name] > 0 else spec.highest) is None
    }
    total = 0.0
    for name, weight in settings.weights.items():
        found = metrics[name]
        if found.value is not None and math.isfinite(found.value):
            worst = -1.0 if name in without_limit else -math.inf
            total += max(weight * found.value, worst)
        elif (found.applicable or found.value is not None) and weight:
            return None
    return total - min(settings.token_penalty * num_tokens, 1.0)
