"""Who answers: the interface, local models, models behind a server."""

from typing import TYPE_CHECKING, Any

from collabllm.simulation.assistant.base import Assistant, AssistantReply, Generates, to_assistant
from collabllm.simulation.assistant.openai import OpenAIAssistant
from collabllm.simulation.assistant.ray import RayAssistant
from collabllm.simulation.assistant.vllm import VllmAssistant

if TYPE_CHECKING:
    from collabllm.simulation.assistant.local import LocalAssistant

__all__ = [
    "Assistant",
    "AssistantReply",
    "Generates",
    "LocalAssistant",
    "OpenAIAssistant",
    "RayAssistant",
    "VllmAssistant",
    "to_assistant",
]


def __getattr__(name: str) -> Any:
    """Load LocalAssistant when it is first used; only that imports torch."""
    if name != "LocalAssistant":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from collabllm.simulation.assistant.local import LocalAssistant

    return LocalAssistant
