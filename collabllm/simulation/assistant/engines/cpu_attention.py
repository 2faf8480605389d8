"""Attention for batched generation on a CPU, without copying keys and values for every query head.

transformers repeats them whenever there is a padding mask: for 16 conversations of 340 tokens with
the bundled model that takes 88 of some 150 ms per token; PyTorch's own grouped-query path takes 17,
but in bf16 without AMX it is the slowest of all for a single token (9.6 ms a layer for 40
conversations of 250 tokens; 1.6 where the heads that share keys are the rows of one matrix).
"""

import logging
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

logger = logging.getLogger(__name__)

_NAME = "collabllm_grouped_sdpa"


def use_grouped_attention(model: Any) -> bool:
    """Switch a model on a CPU from sdpa to the grouped path.

    Returns:
        Whether it was switched; a model with another attention stays as it is.
    """
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)
    return True


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend; query has shape [batch, heads, seq, dim], key and value [batch, kv_heads, all, dim].

    Returns:
        Shape [batch, seq, heads, dim], and no attention weights.
    """
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    batch, heads, num_new, dim = query.shape
    if num_new == 1:  # then all heads may see the same, and those that share keys are rows
        query = query.reshape(batch, key.shape[1], -1, dim)
    output = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=causal and attention_mask is None and num_new > 1,
        enable_gqa=query.shape[1] != key.shape[1],
    ).reshape(batch, heads, num_new, -1)
    return output.transpose(1, 2).contiguous(), None
