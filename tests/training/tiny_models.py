"""Tiny random models of real families, with a tokenizer and template of the family's kind."""

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.tokenizers_for_tests import make_tokenizer

_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
_HEAD = {"head_dim": 16}
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
# name: (tokenizer of tokenizers_for_tests, class of the model, its configuration)
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama3_1", "Llama", {}),
    "qwen2": ("qwen2_5", "Qwen2", {}),
    "qwen3": ("qwen3", "Qwen3", _HEAD),
    "gemma2": ("gemma2", "Gemma2", _HEAD),
    "gemma3_text": ("gemma", "Gemma3", _HEAD),
    "gemma3": ("gemma", "Gemma3", _HEAD),
    "mistral": ("mistral", "Mistral", _HEAD),
    "phi3": ("phi3", "Phi3", {}),
    "gpt_oss": (
        "gpt_oss",
        "GptOss",
        {**_HEAD, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
}


def save_family(family: str, folder: Path) -> Path:
    """Save a model of the family with two layers."""
    tokenizer_name, class_name, more = FAMILIES[family]
    tokenizer = make_tokenizer(tokenizer_name)
    sizes = {
        **_SIZES,
        **more,
        "vocab_size": len(tokenizer) + 8,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    torch.manual_seed(0)
    if family == "gemma3":
        text = {**sizes, "model_type": "gemma3_text"}
        config = transformers.Gemma3Config(
            text_config=text,
            vision_config=_VISION,
            mm_tokens_per_image=4,
            image_token_id=len(tokenizer) + 1,
            boi_token_id=len(tokenizer) + 2,
            eoi_token_id=len(tokenizer) + 3,
        )
        model = transformers.Gemma3ForConditionalGeneration(config)
    else:
        config_class = f"{class_name}{'TextConfig' if family == 'gemma3_text' else 'Config'}"
        config = getattr(transformers, config_class)(**sizes)
        model = getattr(transformers, f"{class_name}ForCausalLM")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
