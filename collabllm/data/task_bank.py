"""The task bank: what people want done, what they know and do not say, and good and bad replies.

Written for this project, in `bank/*.yaml`. An entry is a task with facts or a clear request; a kind
is an entry's unique name. Some kinds are for the final test; the others are the demo dataset, of
which training holds a part out, to choose recipes on: see `collabllm.tasks.demo`.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

Entry = Mapping[str, Any]
"""A task: kind, area, facts (name to ask, say, value), vague, some, full, asks, result, wrong.

A clear request: kind, area, request, result, needless.
"""

_TEST_SHARE = 0.15
_SALT = "collabllm-bank-v1"


@lru_cache(maxsize=1)
def load_bank() -> tuple[Entry, ...]:
    """Read all entries, in a fixed order that mixes the areas."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = [entry for text in _read_files() for entry in yaml.load(text, Loader=loader)]
    return tuple(sorted(entries, key=lambda entry: _draw(entry["kind"])))


def bank_fingerprint() -> str:
    """Return a hash of what the bank says."""
    return hashlib.sha256("".join(_read_files()).encode()).hexdigest()[:16]


def _read_files() -> list[str]:
    folder = files("collabllm.data").joinpath("bank")
    found = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [f.read_text(encoding="utf-8") for f in sorted(found, key=lambda file: file.name)]


def is_test_kind(kind: str) -> bool:
    """Tell whether a kind is for the test, by its hash: more entries move none to another side."""
    return _draw(kind) < _TEST_SHARE


def _draw(kind: str) -> float:
    """Return a number in [0, 1) that belongs to a kind."""
    digest = hashlib.sha256(f"{_SALT}:{kind}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


SENTENCE_ENDS = ".?!\u2026\u3002\uff0e\uff01\uff1f\u061f\u06d4\u0964"
"""Also of Chinese, Arabic, Urdu and Hindi."""


def end_sentence(text: str) -> str:
    """Add a full stop where people left it out, so that another sentence can follow.

    A block of code has none.
    """
    return text if text.endswith((*SENTENCE_ENDS, "```")) else f"{text}."
