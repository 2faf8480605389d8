"""The multiturn-aware reward as a reward function of TRL's trainers."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from collabllm.messages import Message, to_chat
from collabllm.rewards.metrics.text import repeats_reply
from collabllm.rewards.multiturn import RewardEstimate, RewardSettings, estimate_rewards
from collabllm.rewards.registry import MetricTools
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.batch import UserFactory
from collabllm.simulation.simulator import derive_seed
from collabllm.tasks import Task, to_task


class MultiturnReward:
    """An async reward function: `GRPOTrainer(reward_funcs=[MultiturnReward(...)])`.

    The dataset needs `prompt` (messages up to the user) and a task's columns, `single_turn_prompt`
    at least; they reach the function as they are in the dataset. A reply without a reward gives
    None, which the trainer leaves out; one that says an earlier reply of its prompt again, word for
    word, gets the floor. The completions of one prompt and step meet the same users.

    Args:
        assistant: Writes the futures' replies; a copy of the policy, or any fixed assistant.
        user_factory: Makes a future's user from (task, seed).
        weights: Weight of each metric.
        window: User messages simulated after the reply.
        num_samples: Futures per reply.
        token_penalty: Reward lost for each token of the assistant, at most 1 in total.
        tasks: Tasks by `single_turn_prompt`, for datasets whose rows do not hold the facts.
        tools: For metrics that need more than a tokenizer.
        seed: Seed of all futures.
        deadline_s: Seconds after which a completion goes without a reward; None waits for ever.
        end_token_ids: The policy's tokens that end a reply. A completion without one at its end was
            cut by the length limit and gets the floor; without them every one counts as whole.
    """

    __name__ = "multiturn_reward"

    def __init__(
        self,
        assistant: Assistant,
        user_factory: UserFactory,
        *,
        weights: Mapping[str, float],
        window: int = 2,
        num_samples: int = 3,
        token_penalty: float = 0.0,
        tasks: Sequence[Task] = (),
        tools: MetricTools | None = None,
        seed: int = 0,
        deadline_s: float | None = None,
        end_token_ids: Collection[int] = (),
    ) -> None:
        self.assistant, self.user_factory = assistant, user_factory
        self.settings = RewardSettings(weights, token_penalty, window, num_samples)
        self.tasks = {task.single_turn_prompt: task for task in tasks}
        self.tools, self.seed, self.deadline_s = tools, seed, deadline_s
        self.end_token_ids = frozenset(end_token_ids)

    async def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Reward each completion; `columns` are those of the dataset, one value a completion."""
        estimates = await self.estimate(prompts, completions, **columns)
        return [estimate.value for estimate in estimates]

    async def estimate(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[RewardEstimate]:
        """Return the futures behind each reward; one that outlasts the deadline has none."""
        step = getattr(columns.get("trainer_state"), "global_step", 0)
        rows = [
            {
                name: values[idx]
                for name, values in columns.items()
                if isinstance(values, list) and len(values) == len(prompts)
            }
            for idx in range(len(prompts))
        ]
        return await asyncio.gather(
            *(
                self._estimate_in_time(prompt, completion, row, step)
                for prompt, completion, row in zip(prompts, completions, rows, strict=True)
            )
        )

    async def _estimate_in_time(
        self, prompt: Any, completion: Any, row: Mapping[str, Any], step: int
    ) -> RewardEstimate:
        try:
            async with asyncio.timeout(self.deadline_s):
                return await self._estimate(prompt, completion, row, step)
        except TimeoutError:
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            return RewardEstimate(text)

    async def _estimate(
        self, prompt: Any, completion: Any, row: Mapping[str, Any], step: int
    ) -> RewardEstimate:
        task = self.tasks.get(row.get("single_turn_prompt", "")) or to_task(row)
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        context = (
            [Message(role="user", content=prompt)] if isinstance(prompt, str) else to_chat(prompt)
        )
        seed = derive_seed(self.seed, task.task_id, len(context), step)
        ids = row.get("completion_ids")
        is_cut = bool(self.end_token_ids and ids and ids[-1] not in self.end_token_ids)
        (estimate,) = await estimate_rewards(
            [text],
            context,
            task,
            self.assistant,
            self.user_factory,
            self.settings,
            tools=self.tools,
            seed=seed,
            cut=[is_cut or repeats_reply(text, context)],
        )
        return estimate
