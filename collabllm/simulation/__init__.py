"""Simulated conversations between an assistant under training and a simulated user."""

from typing import TYPE_CHECKING

from collabllm.lazy_exports import lazy_exports

_HOMES = {
    "Assistant": "simulation.assistant",
    "AssistantReply": "simulation.assistant",
    "ChatSimulator": "simulation.simulator",
    "LocalAssistant": "simulation.assistant.local",
    "NativeUserModel": "simulation.user_models",
    "OpenAIAssistant": "simulation.assistant",
    "OpenAIClient": "servers.client",
    "OpenAIUserModel": "simulation.user_models",
    "Persona": "simulation.user_models",
    "RolloutResult": "simulation.simulator",
    "RuleBasedUser": "simulation.user_models",
    "ShardedUserModel": "simulation.user_models",
    "TerminationReason": "simulation.endings",
    "Transcripts": "simulation.run",
    "UsageLedger": "servers.usage",
    "UserModel": "simulation.user_models",
    "UserTurnResult": "simulation.user_models",
    "audit_conversation": "simulation.audit",
    "simulate": "simulation.batch",
    "simulate_chats": "simulation.run",
}
__all__ = [
    "Assistant",
    "AssistantReply",
    "ChatSimulator",
    "LocalAssistant",
    "NativeUserModel",
    "OpenAIAssistant",
    "OpenAIClient",
    "OpenAIUserModel",
    "Persona",
    "RolloutResult",
    "RuleBasedUser",
    "ShardedUserModel",
    "TerminationReason",
    "Transcripts",
    "UsageLedger",
    "UserModel",
    "UserTurnResult",
    "audit_conversation",
    "simulate",
    "simulate_chats",
]


if TYPE_CHECKING:
    from collabllm.servers.client import OpenAIClient
    from collabllm.servers.usage import UsageLedger
    from collabllm.simulation.assistant import Assistant, AssistantReply, OpenAIAssistant
    from collabllm.simulation.assistant.local import LocalAssistant
    from collabllm.simulation.audit import audit_conversation
    from collabllm.simulation.batch import simulate
    from collabllm.simulation.endings import TerminationReason
    from collabllm.simulation.run import Transcripts, simulate_chats
    from collabllm.simulation.simulator import ChatSimulator, RolloutResult
    from collabllm.simulation.user_models import (
        NativeUserModel,
        OpenAIUserModel,
        UserModel,
        UserTurnResult,
    )
    from collabllm.simulation.user_models.personas import Persona
    from collabllm.simulation.user_models.rule_based import RuleBasedUser, ShardedUserModel

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
