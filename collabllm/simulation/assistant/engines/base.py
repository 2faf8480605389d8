"""What every engine of a local assistant offers, and how a reply ends."""

from typing import Any, Protocol


class Engine(Protocol):
    """Generates token ids for one prompt; many calls may run at once."""

    async def generate(
        self, prompt_ids: list[int], max_new_tokens: int, seed: int | None = None
    ) -> tuple[list[int], bool]:
        """Return the new ids, and whether the model ended by itself."""
        ...

    def close(self) -> None:
        """Stop; no call may be under way."""
        ...


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Collect every id that ends a reply, from model and tokenizer."""
    found = model.generation_config.eos_token_id
    ids = list(found) if isinstance(found, list) else [found]
    return sorted({i for i in (*ids, tokenizer.eos_token_id) if i is not None})
