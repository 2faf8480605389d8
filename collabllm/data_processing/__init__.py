"""From multi-turn datasets with scored replies to training rows; imports no torch."""

from typing import TYPE_CHECKING

from collabllm.lazy_exports import lazy_exports

_HOMES = {
    "DEFAULT_SYSTEM_PROMPT": "prompts",
    "IGNORE_INDEX": "data_processing.tokenization",
    "load_multiturn_dataset": "data_processing.loading",
    "multiturn_dataset_to_dpo": "data_processing.dataset_utils",
    "multiturn_dataset_to_prompts": "data_processing.dataset_utils",
    "multiturn_dataset_to_sft": "data_processing.dataset_utils",
    "tokenize_conversation": "data_processing.tokenization",
}
__all__ = [
    "DEFAULT_SYSTEM_PROMPT",
    "IGNORE_INDEX",
    "load_multiturn_dataset",
    "multiturn_dataset_to_dpo",
    "multiturn_dataset_to_prompts",
    "multiturn_dataset_to_sft",
    "tokenize_conversation",
]

if TYPE_CHECKING:
    from collabllm.data_processing.dataset_utils import (
        multiturn_dataset_to_dpo,
        multiturn_dataset_to_prompts,
        multiturn_dataset_to_sft,
    )
    from collabllm.data_processing.loading import load_multiturn_dataset
    from collabllm.data_processing.tokenization import IGNORE_INDEX, tokenize_conversation
    from collabllm.prompts import DEFAULT_SYSTEM_PROMPT

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
