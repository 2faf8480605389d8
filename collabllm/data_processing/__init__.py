"""From multi-turn datasets with scored replies to training rows; imports no torch."""

from collabllm.data_processing.dataset_utils import (
    DEFAULT_SYSTEM_PROMPT,
    multiturn_dataset_to_dpo,
    multiturn_dataset_to_sft,
)
from collabllm.data_processing.loading import load_multiturn_dataset
from collabllm.data_processing.tokenization import IGNORE_INDEX, tokenize_conversation

__all__ = [
    "DEFAULT_SYSTEM_PROMPT",
    "IGNORE_INDEX",
    "load_multiturn_dataset",
    "multiturn_dataset_to_dpo",
    "multiturn_dataset_to_sft",
    "tokenize_conversation",
]
