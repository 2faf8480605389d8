"""Fine-tuning: settings, checks before a run, one module per method, what a run leaves behind."""

from typing import TYPE_CHECKING, Any

from collabllm.training.train_utils import get_timebased_filename, parse_secrets_runpod

if TYPE_CHECKING:
    from collabllm.training.dpo import train_dpo
    from collabllm.training.grpo import train_grpo
    from collabllm.training.grpo_settings import GRPOSettings
    from collabllm.training.merging import merge_adapter
    from collabllm.training.settings import DPOSettings, SFTSettings
    from collabllm.training.sft import train_sft

__all__ = [
    "DPOSettings",
    "GRPOSettings",
    "SFTSettings",
    "get_timebased_filename",
    "merge_adapter",
    "parse_secrets_runpod",
    "train_dpo",
    "train_grpo",
    "train_sft",
]

# These load torch, so they wait until they are asked for.
_MODULES = {
    "DPOSettings": "settings",
    "GRPOSettings": "grpo_settings",
    "SFTSettings": "settings",
    "merge_adapter": "merging",
    "train_dpo": "dpo",
    "train_grpo": "grpo",
    "train_sft": "sft",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
