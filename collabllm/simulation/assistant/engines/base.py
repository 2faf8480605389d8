"""What every engine of a local assistant offers, and which settings count."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from transformers import GenerationConfig

logger = logging.getLogger(__name__)

STOPPED = "The local engine has stopped; make a new LocalAssistant."
_KEPT = ("eos_token_id", "pad_token_id", "bos_token_id")
OnIds = Callable[[list[int]], None]
"""Is handed the ids written so far, on the caller's loop."""
_OURS = ("do_sample", "temperature", "top_p", "top_k", "max_new_tokens", "max_length")


class Engine(Protocol):
    """Generates token ids for one prompt; many calls may run at once."""

    async def generate(
        self,
        prompt_ids: list[int],
        max_new_tokens: int,
        seed: int | None = None,
        on_ids: OnIds | None = None,
        temperature: float | None = None,
        earlier: Sequence[list[int]] = (),
    ) -> tuple[list[int], bool]:
        """Return the new ids, and whether the model ended by itself.

        Nothing more is written for a call that is cancelled.

        Args:
            prompt_ids: Ids of the prompt.
            max_new_tokens: Most new ids.
            seed: For sampling, where the engine honours one.
            on_ids: Called whenever there are more ids.
            temperature: In place of the engine's own; 0 takes the likeliest tokens.
            earlier: Ids of the assistant's earlier replies, for an engine that repeats none.

        Raises:
            RuntimeError: If the engine fails, or has stopped.
            ValueError: If it has one temperature for all.
        """
        ...

    def warmup(self) -> None:
        """Do what the first call would have to wait for."""
        ...

    def close(self) -> None:
        """Stop; calls under way fail."""
        ...


def keep_special_ids_only(model: Any) -> GenerationConfig:
    """Let a model's own generation config say how replies end, and nothing about sampling.

    What a model brings there, such as a repetition penalty, cannot count in every engine: with it,
    the same settings would sample from two distributions.

    Returns:
        The model's own config, to be given back to it at the end.
    """
    own: GenerationConfig = model.generation_config
    values = own.to_diff_dict()
    model.generation_config = GenerationConfig(**{k: v for k, v in values.items() if k in _KEPT})
    dropped = {
        name: value
        for name, value in values.items()
        if name not in (*_KEPT, *_OURS, "transformers_version")
        and not name.startswith("_")
        and not isinstance(value, bool)
    }
    if dropped:
        logger.info("Of the model's generation config this is not used: %s", dropped)
    return own
