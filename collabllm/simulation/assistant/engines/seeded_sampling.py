"""Sampling with a random stream for each row of a batch: a reply depends on its own seed only."""

from collections.abc import Sequence
from typing import cast

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class SeededSampling(LogitsProcessor):
    """Turns greedy `generate` into sampling: each row is left with the token that it has drawn.

    A row draws one number and takes the token where the cumulative probability passes it.
    transformers' own sampling draws all rows from one stream, so that a reply there depends on who
    shares its batch.

    Args:
        seeds: One for each row; None takes one from torch's own stream.
        temperatures: One for each row; 0 takes the likeliest token.
        top_p: Share of the probability to sample from; 1 is all of it.
        top_k: Number of likeliest tokens to sample from; 0 is all of them.
        device: Device of the model.
    """

    def __init__(
        self,
        seeds: Sequence[int | None],
        *,
        temperatures: Sequence[float] | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        given = torch.tensor(temperatures or [1.0] * len(seeds), device=device)[:, None]
        self._greedy = given == 0
        self._divisors = given.masked_fill(self._greedy, 1.0)  # [rows, 1]
        self._warpers = LogitsProcessorList()
        if top_k:
            self._warpers.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            self._warpers.append(TopPLogitsWarper(top_p))
        self._streams = [
            torch.Generator(device).manual_seed(
                int(torch.randint(2**31, ())) if seed is None else seed
            )
            for seed in seeds
        ]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [rows, vocabulary]: 0 for the token drawn, -inf for all others."""
        warped: torch.Tensor = self._warpers(input_ids, scores.float() / self._divisors)
        passed = warped.softmax(-1).cumsum(-1)
        total = passed[:, -1:]
        draws = [torch.rand(1, generator=stream, device=warped.device) for stream in self._streams]
        # Below the total, also after rounding: a float32 times one below 1 is a smaller one. So no
        # token comes after the last that is possible.
        points = torch.stack(draws) * total
        drawn = torch.searchsorted(passed, points, right=True)
        tokens = torch.where(self._greedy, warped.argmax(-1, keepdim=True), drawn)
        chosen = torch.full_like(warped, -torch.inf).scatter_(1, tokens, 0.0)
        return cast("torch.FloatTensor", chosen)
