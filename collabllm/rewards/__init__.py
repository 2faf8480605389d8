"""Metrics of conversations, and rewards that look ahead."""

from collabllm.data_processing.confidence import p_better
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
    register_metric,
    score_conversation,
    summarize,
)
from collabllm.rewards.trl_reward import MultiturnReward

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
