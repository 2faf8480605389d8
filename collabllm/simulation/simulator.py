"""One conversation between an assistant and a simulated user, from a prefix to a named ending."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from collabllm.errors import SimulationError
from collabllm.event_loop import run
from collabllm.messages import Message, to_chat, to_valid_text
from collabllm.simulation.assistant import Assistant, AssistantReply, Generates, to_assistant
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.user_models.base import TOLD_WRONGLY, UserModel, UserTurnResult

logger = logging.getLogger(__name__)

_EMPTY_RETRIES = 1
_NO_ROOM = {
    "user": " It is the user model's: lower --user_max_tokens, or give it a larger context.",
    "assistant": " There is no reply yet: lower --max_new_tokens, or give the assistant's model a "
    "larger context.",
}


@dataclass(frozen=True)
class ReplyInfo:
    """What is known of one reply beside its text: how it ended, its tokens, its thoughts."""

    finish_reason: str = "stop"
    completion_tokens: int = 0
    reasoning: str = ""


@dataclass(frozen=True)
class RolloutResult:
    """A finished conversation.

    `messages` begins with the prefix, and ends with an empty reply where the assistant said
    nothing; `user_turns` has each simulated user turn, goodbye included; `usage` counts the
    assistant's tokens and replies; `timings` are seconds by side; `error` says what failed;
    `replies` has one entry for each of the assistant's messages after the prefix.
    """

    messages: list[Message]
    user_turns: list[UserTurnResult]
    termination_reason: TerminationReason
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    error: str = ""
    replies: list[ReplyInfo] = field(default_factory=list)

    @property
    def terminated_by_user(self) -> bool:
        """Whether the user ended the conversation, content or not."""
        return self.termination_reason in (
            TerminationReason.USER_SATISFIED,
            TerminationReason.USER_GAVE_UP,
        )

    @property
    def why_unscored(self) -> str:
        """Why this says nothing about the assistant's work, as after a slip of the user; or ""."""
        if self.termination_reason.is_failure:
            return f"the conversation ended as {self.termination_reason}"
        if any(TOLD_WRONGLY in turn.slips for turn in self.user_turns):
            return "the user marked that it had told something wrongly"
        return ""

    @property
    def num_cut(self) -> int:
        """Replies that a limit cut."""
        return sum(reply.finish_reason == "length" for reply in self.replies)


class ChatSimulator:
    """Lets an assistant and a simulated user talk.

    Args:
        assistant: Answers; any object with `generate(messages) -> str` will do.
        user_model: Plays the user of this conversation.
        token_budget: Most tokens that the assistant may write in a conversation; None for no limit.
    """

    def __init__(
        self,
        assistant: Assistant | Generates,
        user_model: UserModel,
        token_budget: int | None = None,
    ) -> None:
        self.assistant = to_assistant(assistant)
        self.user_model = user_model
        self.token_budget = token_budget

    def rollout(
        self,
        conversation_prefix: Sequence[Message],
        max_turns: int,
        start_with_assistant: bool | None = None,
        *,
        seed: int = 0,
    ) -> RolloutResult:
        """Continue a conversation until somebody or something ends it.

        A turn is a user message and the reply to it. A user message left open at the end of the
        prefix is answered first and does not count.

        Args:
            conversation_prefix: Messages so far, empty for a new conversation; not changed.
            max_turns: Most simulated user messages; 0 only answers an open one.
            start_with_assistant: Who speaks first; by default the assistant after an open user
                message, else the user.
            seed: Seeds of all turns derive from it; another seed gives another sample.

        Raises:
            ValueError: If `max_turns` is negative, or the assistant is to speak twice in a row.
        """
        return run(self.arollout(conversation_prefix, max_turns, start_with_assistant, seed=seed))

    def interactive_rollout(
        self, conversation_prefix: Sequence[Message] = (), max_turns: int = 10
    ) -> list[Message]:
        """Talk at the terminal: a person may take either side; see `interactive`."""
        from collabllm.simulation.terminal import interactive_rollout

        return interactive_rollout(self.assistant, self.user_model, conversation_prefix, max_turns)

    async def arollout(
        self,
        conversation_prefix: Sequence[Message],
        max_turns: int,
        start_with_assistant: bool | None = None,
        *,
        seed: int = 0,
        stop: asyncio.Event | None = None,
        keep_errors: bool = False,
    ) -> RolloutResult:
        """Do as `rollout` does, among others.

        Args:
            conversation_prefix: As in `rollout`.
            max_turns: As in `rollout`.
            start_with_assistant: As in `rollout`.
            seed: As in `rollout`.
            stop: When set, ends the conversation before its next turn.
            keep_errors: An unexpected exception is the ending `error`, and not raised.
        """
        if max_turns < 0:
            raise ValueError(f"max_turns must be at least 0, got {max_turns}.")
        last_role = conversation_prefix[-1]["role"] if conversation_prefix else None
        if start_with_assistant is None:
            start_with_assistant = last_role == "user"
        if start_with_assistant and last_role == "assistant":
            raise ValueError(
                "start_with_assistant=True, but the prefix ends with the assistant; leave it out."
            )
        talk = _Conversation(self, to_chat(conversation_prefix), seed, stop)
        try:
            reason = await talk.run(max_turns, start_with_assistant)
        except _EndedError as ending:
            reason = ending.reason
        except Exception as error:  # of foreign code: a user, an assistant, a template
            if not keep_errors:
                raise
            logger.debug("A conversation ended by an error.", exc_info=error)
            reason, talk.error = TerminationReason.ERROR, f"{type(error).__name__}: {error}"
        return talk.result(reason)


class _EndedError(Exception):
    """Carries the reason of an early end out of a turn."""

    def __init__(self, reason: TerminationReason) -> None:
        self.reason = reason


class _Conversation:
    """The state of one running conversation."""

    def __init__(
        self,
        simulator: ChatSimulator,
        messages: list[Message],
        seed: int,
        stop: asyncio.Event | None,
    ) -> None:
        self.simulator, self.messages, self.seed, self.stop = simulator, messages, seed, stop
        self.user_turns: list[UserTurnResult] = []
        self.usage = {"replies": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self.timings = {"assistant_s": 0.0, "user_s": 0.0}
        self.seeds: list[int] = []
        self.replies: list[ReplyInfo] = []
        self.error = ""

    async def run(self, max_turns: int, start_with_assistant: bool) -> TerminationReason:
        if start_with_assistant:
            await self.assistant_turn()
        for _ in range(max_turns):
            turn = await self.user_turn()
            self.user_turns.append(turn)
            if turn.is_terminal:
                return self._ended_by_user(turn)
            self.messages.append({"role": "user", "content": turn.response})
            await self.assistant_turn()
        return TerminationReason.MAX_TURNS

    def _ended_by_user(self, turn: UserTurnResult) -> TerminationReason:
        if all(message["role"] != "assistant" for message in self.messages):
            return TerminationReason.USER_EMPTY
        if turn.gave_up:
            return TerminationReason.USER_GAVE_UP
        return TerminationReason.USER_SATISFIED

    async def user_turn(self) -> UserTurnResult:
        budget = self.simulator.token_budget
        if budget is not None and self.usage["completion_tokens"] >= budget:
            raise _EndedError(TerminationReason.TOKEN_BUDGET)
        for _ in range(_EMPTY_RETRIES + 1):
            turn: UserTurnResult = await self._call(
                "user",
                self.simulator.user_model.agenerate,
            )
            turn = replace(turn, response=to_valid_text(turn.response))
            if turn.response.strip() or turn.is_terminal:
                return turn
        raise _EndedError(TerminationReason.USER_EMPTY)

    async def assistant_turn(self) -> None:
        for _ in range(_EMPTY_RETRIES + 1):
            reply: AssistantReply = await self._call(
                "assistant", self.simulator.assistant.agenerate
            )
            self.usage["replies"] += 1
            self.usage["prompt_tokens"] += reply.prompt_tokens
            self.usage["completion_tokens"] += reply.completion_tokens
            text = to_valid_text(reply.text)
            info = ReplyInfo(
                reply.finish_reason, reply.completion_tokens, to_valid_text(reply.reasoning)
            )
            if text.strip():
                break
        self.messages.append({"role": "assistant", "content": text})
        self.replies.append(info)
        if not text.strip():
            raise _EndedError(TerminationReason.ASSISTANT_EMPTY)

    async def _call(self, side: Literal["user", "assistant"], generate: Any) -> Any:
        """Call one side, and turn its failures into the reason of an end."""
        clock = f"{side}_s"  # also part of the seed: another name would change every conversation
        if self.stop is not None and self.stop.is_set():
            raise _EndedError(TerminationReason.CANCELLED)
        seed = derive_seed(self.seed, clock, len(self.seeds))
        self.seeds.append(seed)
        started = time.perf_counter()
        try:
            return await generate(self.messages, seed=seed)
        except SimulationError as error:
            if error.ends_run and self.stop is not None:
                self.stop.set()
            reason, self.error = TerminationReason(error.ending), str(error)
            if reason is TerminationReason.CONTEXT_FULL and not self._is_result(side):
                reason = TerminationReason.SERVER_ERROR
                self.error += _NO_ROOM[side]
            raise _EndedError(reason) from error
        finally:
            self.timings[clock] += time.perf_counter() - started

    def _is_result(self, side: Literal["user", "assistant"]) -> bool:
        """Whether a full context on this side came of what the assistant has said."""
        return side == "assistant" and any(m["role"] == "assistant" for m in self.messages)

    def result(self, reason: TerminationReason) -> RolloutResult:
        return RolloutResult(
            self.messages,
            self.user_turns,
            reason,
            self.usage,
            {clock: round(seconds, 3) for clock, seconds in self.timings.items()},
            self.seeds,
            self.error,
            self.replies,
        )


def derive_seed(*parts: Any) -> int:
    """Make a seed from parts such as (run seed, task, rollout, turn); shape [], 31 bits."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
