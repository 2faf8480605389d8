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
    """Turns greedy `generate` into sampling by adding Gumbel noise to the log-probabilities.

    The largest of log-probabilities with standard Gumbel noise falls on a token with that token's
    probability. transformers' own sampling draws all rows from one stream, so that a reply there
    depends on who shares its batch.

    Args:
        seeds: One for each row; None takes one from torch's own stream.
        temperatures: One for each row; 0 takes the likeliest token.
        top_p: Share of the probability to sample from; 1 is all of it.
        top_k: Number of likeliest tokens to sample from; 0 is all of them.
        device: Device of the model.

    Source: Gumbel-max trick, arXiv:1611.01144, section 2.
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
        """Return scores, shape [rows, vocabulary], whose largest entry is a sample."""
        log_probs: torch.Tensor = self._warpers(input_ids, scores.float() / self._divisors)
        noise = torch.empty_like(log_probs)
        for row, stream in zip(noise, self._streams, strict=True):
            row.exponential_(generator=stream)
        # A noise of 0 would be an infinite score, even for a masked token.
        noise.clamp_min_(torch.finfo(noise.dtype).tiny).masked_fill_(self._greedy, 1.0)
        return cast("torch.FloatTensor", log_probs - noise.log_())
