"""How a conversation can end, and whose failure an ending is."""

from enum import StrEnum
from typing import Literal

Fault = Literal["", "assistant", "user", "run"]


class TerminationReason(StrEnum):
    """Why a conversation ended, and whose fault that was.

    A fault of the assistant is a result: it counts against the assistant. A fault of the simulated
    user or of the run (servers, budget, Ctrl-C) says nothing about the assistant's work: such a
    conversation has no score, and a resumed run tries it again.
    """

    fault: Fault

    def __new__(cls, value: str, fault: Fault = "") -> "TerminationReason":
        """Make a member of its name in files and its fault."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.fault = fault
        return member

    USER_SATISFIED = "user_satisfied"
    USER_GAVE_UP = "user_gave_up"
    MAX_TURNS = "max_turns"
    TOKEN_BUDGET = "token_budget"
    CONTEXT_FULL = "context_full"
    ASSISTANT_EMPTY = "assistant_empty", "assistant"
    USER_EMPTY = "user_empty", "user"
    USER_UNPARSEABLE = "user_unparseable", "user"
    SERVER_ERROR = "server_error", "run"
    ERROR = "error", "run"
    CANCELLED = "cancelled", "run"

    @property
    def is_failure(self) -> bool:
        """Whether the conversation says nothing about the assistant's work."""
        return self.fault in ("user", "run")


FAILURES = frozenset(reason for reason in TerminationReason if reason.is_failure)
"""Endings that say nothing about the assistant's work; a resumed run tries these again."""
