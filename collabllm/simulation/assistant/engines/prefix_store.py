"""Keys and values of conversations so far, so that a turn encodes only what is new."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicCache
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
            cache: What `generate` leaves, shape [rows, heads, width + reply, head_dim] per layer.
        """
        layers = getattr(cache, "layers", ())
        if not layers or not isinstance(layers[0], RoomyLayer):
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


class RoomyLayer(DynamicLayer):
    """A layer with room for what will be generated; transformers' own is copied for each token.

    Args:
        num_tokens: Most tokens that it will hold.
    """

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self._num_tokens = num_tokens

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take the memory for keys and values, shape [batch, heads, num_tokens, head_dim]."""
        super().lazy_initialization(key_states, value_states)
        batch, heads, _, head_dim = key_states.shape
        self._all_keys = key_states.new_empty(batch, heads, self._num_tokens, head_dim)
        self._all_values = self._all_keys.new_empty(
            batch, heads, self._num_tokens, value_states.shape[-1]
        )

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values, shape [batch, heads, new, head_dim]; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
        return self.keys, self.values


def build_cache(model: Any, found: Sequence[Layers], width: int, num_tokens: int) -> Cache | None:
    """Make a cache for a batch, with stored prefixes padded on the left.

    Args:
        model: It has to have plain attention layers only, else there is no such cache.
        found: Stored layers of each row; none for a row without a prefix.
        width: Tokens of the longest prefix.
        num_tokens: Most tokens of a row, padding included.
    """
    layers = DynamicCache(config=model.config.get_text_config()).layers
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    cache = DynamicCache()
    cache.layers = [RoomyLayer(num_tokens) for _ in layers]
    example = next((stored for stored in found if stored), [])
    for layer_idx, (keys, values) in enumerate(example):
        pair = []
        for which, tensor in enumerate((keys, values)):
            padded = tensor.new_zeros(len(found), tensor.shape[0], width, tensor.shape[2])
            for row, rows in enumerate(found):
                if rows:
                    stored = rows[layer_idx][which]
                    padded[row, :, width - stored.shape[1] :] = stored
            pair.append(padded)
        cache.update(pair[0], pair[1], layer_idx)
    return cache


def _common_length(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> int:
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length
