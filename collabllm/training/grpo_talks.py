"""Whole conversations of the policy in training, about held-out tasks or as samples to read."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collabllm.errors import CostLimitError, IncompleteRunError
from collabllm.event_loop import run
from collabllm.rewards.scoring import Future, score_rollout
from collabllm.simulation.batch import Record, simulate
from collabllm.simulation.endings import TerminationReason
from collabllm.tasks import Task
from collabllm.training.grpo_online import PolicyReward, mean, mean_metrics
from collabllm.training.method import Scores

logger = logging.getLogger(__name__)

Talk = tuple[Record, Future]


def talk_about(tasks: Sequence[Task], online: PolicyReward, file: Path) -> list[Talk]:
    """Let the policy talk about tasks to the end, and reward the conversations.

    Args:
        tasks: What they are about.
        online: Who talks, and what is rewarded.
        file: Takes the transcripts; an older file is replaced.

    Returns:
        Conversations by task id.

    Raises:
        CostLimitError: If the cost limit is reached.
    """
    settings = online.settings
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    records: list[Record] = []
    with online.policy.borrow():
        batch = simulate(
            tasks,
            online.policy,
            online.user_factory,
            max_turns=settings.max_turns,
            concurrency=settings.concurrency,
            seed=settings.seed,
            output=file,
            system_prompt=settings.system_prompt or None,
            progress=False,
            fail_on_error=1.0,
            deadline_s=settings.reward_timeout_s,
        )
        try:
            records.extend(batch)
        except IncompleteRunError as error:  # no reason to lose the steps so far
            logger.warning("ATTENTION: conversations are left out. %s", error)
    cancelled = [r for r in records if r.result.termination_reason is TerminationReason.CANCELLED]
    if cancelled:
        raise CostLimitError(max((record.result.error for record in cancelled), key=len))
    records.sort(key=lambda record: record.task_id)
    return list(zip(records, run(_score(records, tasks, online)), strict=True))


async def _score(
    records: Sequence[Record], tasks: Sequence[Task], online: PolicyReward
) -> list[Future]:
    by_id, reward = {task.task_id: task for task in tasks}, online.settings.reward
    return await asyncio.gather(
        *(score_rollout(r.result, by_id[r.task_id], reward, online.tools, 0) for r in records)
    )


def measure(talks: Sequence[Talk]) -> Scores:
    """Return means of `reward` and of every metric of it or watched, where there are any.

    `num_conversations` counts those that have a reward.
    """
    futures = [future for _, future in talks]
    missing = [future for future in futures if future.reward is None]
    if missing:
        reasons = (value.reason for f in missing for value in f.metrics.values() if value.reason)
        logger.warning(
            "ATTENTION: %d of %d conversations have no reward (%s).",
            len(missing),
            len(futures),
            next(reasons, "no reason is known"),
        )
    found = {
        "reward": mean(future.reward for future in futures),
        **mean_metrics(futures),
        "num_conversations": float(len(futures) - len(missing)),
    }
    return {name: value for name, value in found.items() if value is not None}


def to_rows(talks: Sequence[Talk], step: int) -> list[dict[str, Any]]:
    """Return a row of each conversation, for a table to read in a tracker."""
    return [
        {
            "step": step,
            "task": record.task_id,
            "reward": future.reward,
            "conversation": "\n\n".join(
                f"{message['role']}: {message['content']}" for message in record.result.messages
            ),
        }
        for record, future in talks
    ]
