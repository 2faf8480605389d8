"""The user's side of a conversation: the interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collabllm.event_loop import run, run_blocking
from collabllm.messages import Message

TERMINAL_SIGNAL = DEFAULT_TERMINAL_SIGNAL = "[[END OF CHAT]]"
"""Text by which a user says that it has what it wanted."""
GIVE_UP_SIGNAL = "[[GIVE UP]]"
"""Text by which a user says that it is no use going on."""
TOLD_WRONGLY, PREMATURE_END, CUT = "told_wrongly", "premature_end", "cut"
"""The slips of a user; see `UserTurnResult`."""


@dataclass(frozen=True)
class UserTurnResult:
    """What a simulated user did in one turn; only `response` may reach the assistant.

    `is_terminal` ends the conversation; `response` is then a goodbye that is not sent on. `gave_up`
    tells that the user left without what it wanted. `slips` are the user's own mistakes, which are
    none of the assistant's: `told_wrongly` (it says that it said something wrong), `premature_end`
    (it wanted to end before there was a result), `cut` (its answer was cut, and asked for again).
    """

    response: str
    thought: str = ""
    current_answer: str = ""
    is_terminal: bool = False
    raw_output: str = ""
    gave_up: bool = False
    slips: tuple[str, ...] = ()


class UserModel:
    """Plays one user of one conversation; abstract: implement `generate` or `agenerate`.

    Args:
        task_desc: What kind of task it is.
        single_turn_prompt: The hidden goal.
        terminal_signal: Text by which the user ends the conversation.
    """

    name: str = "user"
    prompt_hash: str = ""

    def __init__(
        self, task_desc: str, single_turn_prompt: str, terminal_signal: str = TERMINAL_SIGNAL
    ) -> None:
        self.task_desc = task_desc
        self.single_turn_prompt = single_turn_prompt
        self.terminal_signal = terminal_signal

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass that implements neither method.

        Raises:
            TypeError: At class definition.
        """
        super().__init_subclass__(**kwargs)
        if cls.generate is UserModel.generate and cls.agenerate is UserModel.agenerate:
            raise TypeError(f"{cls.__name__} must implement generate or agenerate.")

    def generate(self, messages: Sequence[Message]) -> UserTurnResult:
        """Write the next user message of a conversation."""
        return run(self.agenerate(messages))

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> UserTurnResult:
        """Write the next user message; many calls may run at once.

        Raises:
            UnparseableError: If the output cannot be read, after retries.
            ServerError: If a server fails for good.
        """
        return await run_blocking(self.generate, messages)
