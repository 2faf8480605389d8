"""Metrics of conversations, and rewards that look ahead."""

from collabllm.data_processing.confidence import Posterior, VariancePool, p_better
from collabllm.rewards.judge import Judge
from collabllm.rewards.lint import lint_rewards
from collabllm.rewards.multiturn import (
    Future,
    RewardEstimate,
    RewardSettings,
    estimate_rewards,
    multiturn_reward,
)
from collabllm.rewards.registry import (
    MetricTools,
    MetricValue,
    metric,
    register_metric,
    score_conversation,
)
from collabllm.rewards.trl_reward import MultiturnReward

__all__ = [
    "Future",
    "Judge",
    "MetricTools",
    "MetricValue",
    "MultiturnReward",
    "Posterior",
    "RewardEstimate",
    "RewardSettings",
    "VariancePool",
    "estimate_rewards",
    "lint_rewards",
    "metric",
    "multiturn_reward",
    "p_better",
    "register_metric",
    "score_conversation",
]
