"""From single-turn tasks to a scored multi-turn dataset."""

from collabllm.data_engine.corrections import correct_questions
from collabllm.data_engine.grow import grow_conversations
from collabllm.data_engine.run import build_dataset
from collabllm.data_engine.settings import BuildSettings, CorrectionSettings
from collabllm.data_engine.turn_groups import GrowthSettings, TurnGroup

__all__ = [
    "BuildSettings",
    "CorrectionSettings",
    "GrowthSettings",
    "TurnGroup",
    "build_dataset",
    "correct_questions",
    "grow_conversations",
]
