"""Keys and values of conversations so far, so that a turn encodes only what is new."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_MAX_BYTES = 2**30

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, shape [heads, tokens, head_dim]."""


@dataclass
class _Prefix:
    ids: np.ndarray[Any, Any]
    layers: Layers

    @property
    def num_bytes(self) -> int:
        return sum(2 * keys.numel() * keys.element_size() for keys, _ in self.layers)


class PrefixStore:
    """Keys and values of conversations so far; the longest unused ones go first when full.

    Args:
        max_bytes: Most memory to hold.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._prefixes: list[_Prefix] = []  # least recently used first

    def find(self, ids: Sequence[int]) -> Layers:
        """Return the layers of the longest stored prefix of `ids`, short of its last token."""
        wanted = np.asarray(ids[:-1])
        lengths = [_common_length(wanted, prefix.ids) for prefix in self._prefixes]
        length = max(lengths, default=0)
        if not length:
            return []
        best = self._prefixes.pop(lengths.index(length))
        self._prefixes.append(best)
        return [(keys[:, :length], values[:, :length]) for keys, values in best.layers]

    def add(self, ids: Sequence[int], layers: Layers) -> None:
        """Store a conversation in place of what it continues."""
        new = _Prefix(np.asarray(ids), layers)
        self._prefixes = [
            old for old in self._prefixes if _common_length(new.ids, old.ids) < len(old.ids)
        ]
        self._prefixes.append(new)
        while len(self._prefixes) > 1 and self.num_bytes > self._max_bytes:
            self._prefixes.pop(0)

    def add_rows(self, ids: Sequence[Sequence[int]], mask: torch.Tensor, cache: Any) -> None:
        """Store each row of a batch without its padding, where the cache is a plain one.

        Args:
            ids: Prompt and reply of each row.
            mask: Where the batch has prompt tokens, boolean, shape [rows, width].
            cache: What `generate` leaves, shape [rows, heads, width + reply, head_dim] a layer.
        """
        layers = getattr(cache, "layers", ())
        if not layers or any(type(layer) is not DynamicLayer for layer in layers):
            return
        width, total = mask.shape[1], layers[0].keys.shape[2]
        for row, row_ids in enumerate(ids):
            prompt = mask[row].nonzero()[:, 0]
            # The last token was never fed back, so it has no keys and values.
            num_new = min(len(row_ids) - len(prompt), total - width)
            keep = torch.cat([prompt, torch.arange(width, width + num_new).to(mask.device)])
            self.add(
                row_ids[: len(keep)],
                [(layer.keys[row][:, keep], layer.values[row][:, keep]) for layer in layers],
            )

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(prefix.num_bytes for prefix in self._prefixes)

    def clear(self) -> None:
        """Free all memory."""
        self._prefixes.clear()


def to_cache(found: Sequence[Layers], width: int) -> DynamicCache:
    """Put stored prefixes into one left-padded cache, shape [batch, heads, width, head_dim]."""
    cache = DynamicCache()
    example = next(layers for layers in found if layers)
    for layer_idx, (keys, values) in enumerate(example):
        pair = []
        for which, tensor in enumerate((keys, values)):
            padded = tensor.new_zeros(len(found), tensor.shape[0], width, tensor.shape[2])
            for row, layers in enumerate(found):
                if layers:
                    stored = layers[layer_idx][which]
                    padded[row, :, width - stored.shape[1] :] = stored
            pair.append(padded)
        cache.update(pair[0], pair[1], layer_idx)
    return cache


def _common_length(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> int:
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length
