"""How a conversation can end."""

from enum import StrEnum


class TerminationReason(StrEnum):
    """Why a conversation ended."""

    USER_SATISFIED = "user_satisfied"
    MAX_TURNS = "max_turns"
    TOKEN_BUDGET = "token_budget"
    USER_UNPARSEABLE = "user_unparseable"
    USER_EMPTY = "user_empty"
    ASSISTANT_EMPTY = "assistant_empty"
    CONTEXT_FULL = "context_full"
    SERVER_ERROR = "server_error"
    CANCELLED = "cancelled"


FAILURES = frozenset(
    {
        TerminationReason.USER_UNPARSEABLE,
        TerminationReason.USER_EMPTY,
        TerminationReason.ASSISTANT_EMPTY,
        TerminationReason.SERVER_ERROR,
        TerminationReason.CANCELLED,
    }
)
"""Endings that say nothing about the assistant's work; a resumed run tries these again."""
