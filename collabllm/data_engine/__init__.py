"""From single-turn tasks to a scored multi-turn dataset."""

from collabllm.data_engine.grow import BuildSettings, TurnGroup, build_dataset

__all__ = ["BuildSettings", "TurnGroup", "build_dataset"]
