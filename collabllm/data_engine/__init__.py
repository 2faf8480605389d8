"""From single-turn tasks to a scored multi-turn dataset."""

from collabllm.data_engine.grow import grow_conversations
from collabllm.data_engine.run import build_dataset
from collabllm.data_engine.settings import BuildSettings
from collabllm.data_engine.turn_groups import GrowthSettings, TurnGroup

__all__ = [
    "BuildSettings",
    "GrowthSettings",
    "TurnGroup",
    "build_dataset",
    "grow_conversations",
]
