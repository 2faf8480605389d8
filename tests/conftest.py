"""Builders that the tests share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser  # noqa: F401
from tests.fake_hub import hub  # noqa: F401

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Row = dict[str, Any]


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Build a row of the dataset format; every column can be set."""

    def make(**columns: Any) -> Row:
        row: Row = {
            "prompt": [{"role": "user", "content": "hi"}],
            "completion": "hello",
            "conv_id": 0,
            "score": 0.5,
            "single_turn_prompt": "goal",
            "single_turn_completion": "answer",
        }
        return {**row, **columns}

    return make


@pytest.fixture
def make_conversation(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Build the rows of one conversation from turns of (user text, {reply: score}).

    The conversation goes on with the best reply of each turn.
    """

    def make(turns: list[tuple[str, dict[str, float]]], **columns: Any) -> list[Row]:
        rows: list[Row] = []
        prompt: list[dict[str, str]] = []
        for user, replies in turns:
            prompt = [*prompt, {"role": "user", "content": user}]
            rows += [
                make_row(prompt=prompt, completion=reply, score=score, **columns)
                for reply, score in replies.items()
            ]
            best = max(replies, key=lambda reply: replies[reply])
            prompt = [*prompt, {"role": "assistant", "content": best}]
        return rows

    return make


@pytest.fixture(scope="session")
def twenty_questions() -> Path:
    """Path of the real dataset beside the project; the test is skipped where it is not."""
    path = Path(__file__).parents[2] / "shared/data/twenty_questions/train.jsonl"
    if not path.is_file():
        pytest.skip("../shared/data/twenty_questions is not here")
    return path
