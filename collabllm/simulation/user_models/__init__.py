"""Who plays the user: the interface, language models, rules."""

from collabllm.simulation.user_models.base import (
    DEFAULT_TERMINAL_SIGNAL,
    GIVE_UP_SIGNAL,
    TERMINAL_SIGNAL,
    UserModel,
    UserTurnResult,
)
from collabllm.simulation.user_models.native import NativeUserModel
from collabllm.simulation.user_models.openai import MAX_PARSE_RETRIES, OpenAIUserModel
from collabllm.simulation.user_models.personas import Persona
from collabllm.simulation.user_models.rule_based import RuleBasedUser, ShardedUserModel
from collabllm.simulation.user_models.server import ServerUserModel

__all__ = [
    "DEFAULT_TERMINAL_SIGNAL",
    "GIVE_UP_SIGNAL",
    "MAX_PARSE_RETRIES",
    "TERMINAL_SIGNAL",
    "NativeUserModel",
    "OpenAIUserModel",
    "Persona",
    "RuleBasedUser",
    "ServerUserModel",
    "ShardedUserModel",
    "UserModel",
    "UserTurnResult",
]
