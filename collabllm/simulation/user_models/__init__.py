"""Who plays the user: the interface, language models, rules."""

from collabllm.simulation.user_models.base import TERMINAL_SIGNAL, UserModel, UserTurnResult
from collabllm.simulation.user_models.openai import MAX_PARSE_RETRIES, OpenAIUserModel
from collabllm.simulation.user_models.personas import Persona
from collabllm.simulation.user_models.rule_based import RuleBasedUser, ShardedUserModel

__all__ = [
    "MAX_PARSE_RETRIES",
    "TERMINAL_SIGNAL",
    "OpenAIUserModel",
    "Persona",
    "RuleBasedUser",
    "ShardedUserModel",
    "UserModel",
    "UserTurnResult",
]
