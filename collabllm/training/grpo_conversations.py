"""Credit by whole conversations: the policy talks to the end, and every token id is kept."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from collabllm.errors import CostLimitError, SimulationError
from collabllm.event_loop import run
from collabllm.messages import Message
from collabllm.rewards import RewardEstimate
from collabllm.rewards.metrics.text import repeats_reply
from collabllm.rewards.scoring import NO_REPLY, Future, score_rollout, to_floor
from collabllm.simulation.assistant import Assistant, AssistantReply
from collabllm.simulation.assistant.local import LocalAssistant
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.simulator import ChatSimulator, derive_seed
from collabllm.tasks import to_task

if TYPE_CHECKING:
    from collabllm.training.grpo_online import PolicyReward

_OPENING = Message(role="user", content="?")


class Conversations:
    """TRL's `rollout_func`: one conversation with the simulated user for each prompt.

    The conversations of one prompt and step meet the same user; only the policy's sampling differs.
    """

    def __init__(self, online: "PolicyReward") -> None:
        self.online = online

    def __call__(self, prompts: Sequence[list[Message]], trainer: Any) -> dict[str, Any]:
        """Return what TRL trains on, and the `estimate` that each conversation is rewarded by.

        Args:
            prompts: Each as often as it has conversations.
            trainer: Its `rows` are those of the prompts.
        """
        first = trainer.accelerator.process_index * len(prompts)
        talks = [
            _Talk(self.online.policy, prompt, first + idx) for idx, prompt in enumerate(prompts)
        ]
        with self.online.policy.borrow():
            estimates = run(self._converse_all(talks, trainer.rows, trainer.state.global_step))
        return {
            "prompt_ids": [talk.prompt_ids for talk in talks],
            "completion_ids": [talk.completion_ids for talk in talks],
            "env_mask": [talk.mask for talk in talks],
            "logprobs": None,
            "estimate": estimates,
        }

    async def _converse_all(
        self, talks: Sequence["_Talk"], rows: Sequence[Mapping[str, Any]], step: int
    ) -> list[RewardEstimate]:
        return await asyncio.gather(
            *(self._converse_in_time(*pair, step) for pair in zip(talks, rows, strict=True))
        )

    async def _converse_in_time(
        self, talk: "_Talk", row: Mapping[str, Any], step: int
    ) -> RewardEstimate:
        futures = []
        try:
            async with asyncio.timeout(self.online.settings.reward_timeout_s):
                futures = [await self._converse(talk, row, step)]
        except TimeoutError:
            pass  # the estimate has no value
        talk.close()
        return RewardEstimate("", futures)

    async def _converse(self, talk: "_Talk", row: Mapping[str, Any], step: int) -> Future:
        settings = self.online.settings
        task = self.online.tasks.get(row["single_turn_prompt"]) or to_task(row)
        seed = derive_seed(settings.seed, task.task_id, len(talk.prompt), step)
        num_asked = sum(message["role"] == "user" for message in talk.prompt)
        stop = asyncio.Event()
        result = await ChatSimulator(talk, self.online.user_factory(task, seed)).arollout(
            talk.prompt, max(settings.max_turns - num_asked, 0), seed=seed, stop=stop
        )
        if stop.is_set():
            raise CostLimitError(result.error)
        if result.termination_reason is TerminationReason.ASSISTANT_EMPTY:
            return to_floor(result.messages, NO_REPLY, settings.reward, seed=seed)
        return await score_rollout(result, task, settings.reward, self.online.tools, seed)


class _NoReplyError(SimulationError):
    """A reply was empty, cut by a limit, or an earlier one word for word."""

    ending = "assistant_empty"


class _Talk(Assistant):
    """The policy in one conversation, with the token ids that it has read and written.

    Nothing is tokenized twice: a reply stays the ids that were sampled, also where its text would
    become others. `mask` is 1 for what the policy wrote, 0 for what it read after the prompt.
    """

    def __init__(self, policy: LocalAssistant, prompt: Sequence[Message], sample_idx: int) -> None:
        self.policy, self.prompt, self.sample_idx = policy, prompt, sample_idx
        self.prompt_ids = policy.tokenize(prompt)
        self.completion_ids: list[int] = []
        self.mask: list[int] = []

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> AssistantReply:
        """Reply to the last message after all that was read and written before it."""
        read = self._since_reply(messages[-1]) if self.completion_ids else []
        ids = [*self.prompt_ids, *self.completion_ids, *read]
        reply, written = await self.policy.answer(ids, derive_seed(seed, self.sample_idx))
        self.completion_ids += [*read, *written]
        self.mask += [0] * len(read) + [1] * len(written)
        is_whole = reply.text.strip() and reply.finish_reason != "length"
        if not is_whole or repeats_reply(reply.text, messages):
            raise _NoReplyError("A reply was empty, cut, or an earlier one again.")
        return reply

    def _since_reply(self, message: Message) -> list[int]:
        """Return what the template writes from a reply's end token on to the next reply."""
        one, other = (
            self.policy.tokenize([_OPENING, Message(role="assistant", content=text), message])
            for text in ("a", "b")
        )
        start = max(i for i, pair in enumerate(zip(one, other, strict=True)) if len(set(pair)) > 1)
        special = self.policy.tokenizer.added_tokens_decoder
        end = next((i for i in range(start + 1, len(one)) if one[i] in special), None)
        if end is None:
            raise ValueError(
                "The chat template writes no end token after a reply, which --credit conversation "
                "needs; use --credit turn, or set a chat template that ends each reply."
            )
        return one[end + 1 :]

    def close(self) -> None:
        """Make room for a conversation in which nothing was written: TRL wants one token."""
        if not self.completion_ids:
            self.completion_ids, self.mask = [self.policy.tokenizer.eos_token_id], [0]
