"""Prompts from conversations that the policy of the step has had with the simulated user."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from collabllm.errors import CostLimitError
from collabllm.event_loop import run
from collabllm.messages import Message
from collabllm.simulation.simulator import ChatSimulator, derive_seed
from collabllm.tasks import to_task

if TYPE_CHECKING:
    from collabllm.training.grpo_online import PolicyReward

Row = dict[str, Any]


def go_on(rows: Sequence[Row], online: "PolicyReward", step: int) -> tuple[list[Row], float]:
    """Go on from the opening of each row for some turns, up to a message of the user.

    How many turns is drawn for each task and step. Rows with one opening of one task get the same
    prompt. One that failed, came too late or leaves no room for a reply stays the opening.

    Args:
        rows: `prompt` and a task's columns; unchanged.
        online: Who talks, and what about.
        step: Of the training.

    Returns:
        The rows with their prompts, and the share of conversations that stay the opening.

    Raises:
        CostLimitError: If the cost limit is reached.
    """
    distinct = {json.dumps([row["single_turn_prompt"], row["prompt"]]): row for row in rows}

    async def talk() -> list[list[Message] | None]:
        return await asyncio.gather(*(_talk(row, online, step) for row in distinct.values()))

    with online.policy.borrow():
        prompts = dict(zip(distinct, run(talk()), strict=True))
    keys = (json.dumps([row["single_turn_prompt"], row["prompt"]]) for row in rows)
    gone_on = [
        {**row, "prompt": prompts[key] or row["prompt"]}
        for row, key in zip(rows, keys, strict=True)
    ]
    return gone_on, sum(prompt is None for prompt in prompts.values()) / len(prompts)


async def _talk(row: Mapping[str, Any], online: "PolicyReward", step: int) -> list[Message] | None:
    settings = online.settings
    opening: list[Message] = row["prompt"]
    task = online.tasks.get(row["single_turn_prompt"]) or to_task(row)
    seed = derive_seed(settings.seed, task.task_id, json.dumps(opening), "prompt", step)
    simulator = ChatSimulator(online.policy, online.user_factory(task, seed))
    stop = asyncio.Event()
    num_turns = seed % settings.max_turns
    try:
        async with asyncio.timeout(settings.reward_timeout_s):
            result = await simulator.arollout(opening, num_turns, seed=seed, stop=stop)
    except TimeoutError:
        return None
    if stop.is_set():
        raise CostLimitError(result.error)
    said = [idx for idx, message in enumerate(result.messages) if message["role"] == "user"]
    prompt = result.messages[: said[-1] + 1]
    room = settings.max_length - online.config.max_completion_length
    is_usable = not result.why_unscored
    return prompt if is_usable and len(online.policy.tokenize(prompt)) <= room else None
