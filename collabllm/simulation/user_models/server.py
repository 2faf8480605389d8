"""What users behind a server share: one request per turn, tried again if needed."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from collabllm.errors import UnparseableError
from collabllm.event_loop import run_blocking
from collabllm.messages import Message
from collabllm.servers.client import Completion, OpenAIClient, shared_client
from collabllm.simulation.user_models.base import (
    CUT,
    PREMATURE_END,
    TERMINAL_SIGNAL,
    UserModel,
    UserTurnResult,
)
from collabllm.tasks.matching import find_questions
from collabllm.tasks.results import is_result, user_words

logger = logging.getLogger(__name__)

MAX_PARSE_RETRIES = 3

_MORE_ROOM = 2  # times the tokens, after an answer that was cut
_ANNOUNCES = re.compile(r"\b(i'll|i will|let me|i'm going to|i am going to)\b", re.IGNORECASE)


class ServerUserModel(UserModel):
    """A user played by a model behind an OpenAI-compatible server; see the subclasses.

    A subclass says what is sent (`build_request`, `request_settings`) and how an answer is read
    (`read`). A cut answer is asked for again with more room; the end of a conversation that has
    brought no result yet is put off, and marked as a slip.

    Args:
        task_desc: What kind of task it is.
        single_turn_prompt: The hidden goal.
        model: The server's name for the model; `default_model` where none is given.
        base_url: Address of the server; OpenAI's by default.
        api_key: OPENAI_API_KEY by default.
        temperature: Sampling temperature.
        max_tokens: Most tokens of an answer.
        terminal_signal: Text by which the user ends the conversation; `default_terminal_signal`
            where none is given.
        client: A client to share; by default one per server.
        opening: The first message; the model's own where none is given.
    """

    reminder: str = ""
    default_model: str = "gpt-4o-mini"
    default_terminal_signal: str = TERMINAL_SIGNAL

    def __init__(
        self,
        task_desc: str,
        single_turn_prompt: str,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float = 1.0,
        max_tokens: int = 1024,
        terminal_signal: str | None = None,
        *,
        client: OpenAIClient | None = None,
        opening: str = "",
    ) -> None:
        signal = terminal_signal or self.default_terminal_signal
        super().__init__(task_desc, single_turn_prompt, signal)
        self.name = self.model = model or self.default_model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.opening = opening
        self.client = client or shared_client(base_url, api_key)

    def build_request(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages to send."""
        raise NotImplementedError

    def request_settings(self) -> dict[str, Any]:
        """Return further settings of the request."""
        return {}

    def read(self, answer: str) -> UserTurnResult | None:
        """Read an answer, or return None when it is not readable."""
        raise NotImplementedError

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> UserTurnResult:
        """Ask the server; an unreadable or cut answer is asked for again, at most three times."""
        if self.opening and all(message["role"] == "system" for message in messages):
            return UserTurnResult(self.opening)
        request, max_tokens, num_cut = self.build_request(messages), self.max_tokens, 0
        for attempt in range(MAX_PARSE_RETRIES + 1):
            settings = self.request_settings()
            if seed is not None:
                settings["seed"] = seed + attempt  # a server that honours seeds would repeat itself
            answer = await self.client.complete(
                request,
                self.model,
                role="user",
                temperature=self.temperature,
                max_tokens=max_tokens,
                keep_if=self._is_good,
                **settings,
            )
            if self._is_good(answer):
                turn = self.read(answer.text)
                assert turn is not None
                slips = (*turn.slips, *[CUT] * bool(num_cut))
                return await self._put_off_end(replace(turn, slips=slips), messages)
            logger.info("The simulated user's output was unreadable (try %d).", attempt + 1)
            if answer.finish_reason == "length":
                num_cut, max_tokens = num_cut + 1, max_tokens * _MORE_ROOM
            elif self.reminder and not attempt:
                request = [*request, {"role": "user", "content": self.reminder}]
        hint = f" {num_cut} were cut; raise --user_max_tokens." if num_cut else ""
        raise UnparseableError(
            f"The simulated user's output was unreadable {MAX_PARSE_RETRIES + 1} times.{hint}"
        )

    def _is_good(self, answer: Completion) -> bool:
        return answer.finish_reason != "length" and self.read(answer.text) is not None

    async def _put_off_end(
        self, turn: UserTurnResult, messages: Sequence[Message]
    ) -> UserTurnResult:
        """Keep a user who only confirms from leaving before there is a result.

        One who says nothing beside the signal is asked again, as whoever says nothing.
        """
        if not turn.is_terminal or turn.gave_up or not messages:
            return turn
        if not await run_blocking(self._is_premature, list(messages)):
            return turn
        return replace(turn, is_terminal=False, slips=(*turn.slips, PREMATURE_END))

    def _is_premature(self, messages: Sequence[Message]) -> bool:
        """Tell whether the last reply asks or announces, and none so far is a result."""
        reply = messages[-1]["content"]
        if messages[-1]["role"] != "assistant":
            return True
        if not find_questions(reply) and not _ANNOUNCES.search(reply):
            return False
        return not any(
            is_result(message["content"], user_words(messages[:idx]), goal=self.single_turn_prompt)
            for idx, message in enumerate(messages)
            if message["role"] == "assistant"
        )
