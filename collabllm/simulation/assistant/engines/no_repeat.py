"""Keeps an assistant from saying again, word for word, what it has said in the conversation."""

from collections import defaultdict
from collections.abc import Sequence
from typing import cast

import torch
from transformers import LogitsProcessor


class NoRepeat(LogitsProcessor):
    """Leaves each row no token that would end a run of `size` which its assistant wrote before.

    transformers' `no_repeat_ngram_size` counts the prompt, too, so that a model could neither take
    up what the user said nor follow its system prompt.

    Args:
        earlier: For each row the assistant's earlier replies, as token ids.
        size: Tokens of a run, 1 or more.
        width: Tokens of a row's prompt, padding included; what follows is the reply.
    """

    def __init__(self, earlier: Sequence[Sequence[list[int]]], size: int, width: int) -> None:
        self._size, self._width = size, width
        self._next: list[dict[tuple[int, ...], set[int]]] = []
        for replies in earlier:
            self._next.append(defaultdict(set))
            for ids in replies:
                for end in range(size, len(ids) + 1):
                    self._add(self._next[-1], ids[end - size : end])

    def _add(self, after: dict[tuple[int, ...], set[int]], run: Sequence[int]) -> None:
        *start, last = run
        after[tuple(start)].add(last)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [rows, vocabulary], with -inf for what would repeat."""
        allowed = scores.clone()
        last = input_ids[:, self._width :][:, -self._size :].tolist()
        for row, (after, run) in enumerate(zip(self._next, last, strict=True)):
            if len(run) == self._size:
                self._add(after, run)
                run = run[1:]
            if len(run) == self._size - 1:
                allowed[row, list(after.get(tuple(run), ()))] = -torch.inf
        return cast("torch.FloatTensor", allowed)
