"""The LoRA adapter: on which layers it sits, and a check of their names before weights load."""

import argparse

import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM

from collabllm.models import resolve_model_path

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")


def build_lora_config(args: argparse.Namespace) -> LoraConfig:
    """Make the adapter's configuration from the script's flags."""
    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=list(TARGET_MODULES),
        task_type="CAUSAL_LM",
    )


def check_model(path: str, trust_remote_code: bool = False) -> int | None:
    """Check a model's layer names from its configuration alone.

    Returns:
        Its context length in tokens, None where the configuration does not say.

    Raises:
        ValueError: If it lacks one of `TARGET_MODULES`.
    """
    config = AutoConfig.from_pretrained(
        resolve_model_path(path), trust_remote_code=trust_remote_code
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
    }
    missing = [name for name in TARGET_MODULES if name not in names]
    if missing:
        raise ValueError(
            f"{path} has no layers named {', '.join(missing)}; LoRA goes on "
            f"{', '.join(TARGET_MODULES)}. Its linear layers are: {', '.join(sorted(names))}."
        )
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if context is None else int(context)
