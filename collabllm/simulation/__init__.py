"""Simulated conversations between an assistant under training and a simulated user."""

from typing import TYPE_CHECKING, Any

_HOMES = {
    "Assistant": "assistant",
    "AssistantReply": "assistant",
    "ChatSimulator": "simulator",
    "LocalAssistant": "local_assistant",
    "OpenAIAssistant": "assistant",
    "OpenAIClient": "openai_client",
    "OpenAIUserModel": "user_models",
    "Persona": "personas",
    "RolloutResult": "simulator",
    "ShardedUserModel": "sharded_user",
    "TerminationReason": "simulator",
    "UsageLedger": "usage",
    "UserModel": "user_models",
    "UserTurnResult": "user_models",
    "audit_conversation": "audit",
    "simulate": "batch",
}
__all__ = [
    "Assistant",
    "AssistantReply",
    "ChatSimulator",
    "LocalAssistant",
    "OpenAIAssistant",
    "OpenAIClient",
    "OpenAIUserModel",
    "Persona",
    "RolloutResult",
    "ShardedUserModel",
    "TerminationReason",
    "UsageLedger",
    "UserModel",
    "UserTurnResult",
    "audit_conversation",
    "simulate",
]

if TYPE_CHECKING:
    from collabllm.simulation.assistant import Assistant, AssistantReply, OpenAIAssistant
    from collabllm.simulation.audit import audit_conversation
    from collabllm.simulation.batch import simulate
    from collabllm.simulation.local_assistant import LocalAssistant
    from collabllm.simulation.openai_client import OpenAIClient
    from collabllm.simulation.personas import Persona
    from collabllm.simulation.sharded_user import ShardedUserModel
    from collabllm.simulation.simulator import ChatSimulator, RolloutResult, TerminationReason
    from collabllm.simulation.usage import UsageLedger
    from collabllm.simulation.user_models import OpenAIUserModel, UserModel, UserTurnResult


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that only LocalAssistant imports torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
