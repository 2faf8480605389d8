"""Metrics of conversations, and rewards that look ahead."""

from collabllm.data_processing.confidence import p_better
from collabllm.rewards.grpo import MultiturnReward
from collabllm.rewards.judges import Judge
from collabllm.rewards.lint import lint_rewards
from collabllm.rewards.metrics import (
    MetricTools,
    MetricValue,
    register_metric,
    score_conversation,
    summarize,
)
from collabllm.rewards.multiturn import (
    Future,
    RewardEstimate,
    RewardSettings,
    estimate_rewards,
    multiturn_reward,
)

__all__ = [
    "Future",
    "Judge",
    "MetricTools",
    "MetricValue",
    "MultiturnReward",
    "RewardEstimate",
    "RewardSettings",
    "estimate_rewards",
    "lint_rewards",
    "multiturn_reward",
    "p_better",
    "register_metric",
    "score_conversation",
    "summarize",
]
