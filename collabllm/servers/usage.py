"""Count tokens and cost by role and model, and stop at a cost limit."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from collabllm.errors import CostLimitError

# US dollars a million tokens (prompt, completion), OpenAI's public price list of 2025; override by
# `prices`. A model that is not listed, as every local one, costs nothing.
PRICES: Mapping[str, tuple[float, float]] = {
    "gpt-4o": (2.50, 10.00),
    "gpt-4o-mini": (0.15, 0.60),
    "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60),
    "gpt-4.1-nano": (0.10, 0.40),
}


@dataclass
class Usage:
    """Requests and tokens of one role with one model."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class UsageLedger:
    """Adds up usage from any thread.

    Args:
        max_cost_usd: No further request starts once this is spent; None for no limit.
        prices: Dollars a million tokens (prompt, completion) by model, added to `PRICES`.
    """

    def __init__(
        self,
        max_cost_usd: float | None = None,
        prices: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.max_cost_usd = max_cost_usd
        self._prices = {**PRICES, **(prices or {})}
        self._usage: dict[tuple[str, str], Usage] = defaultdict(Usage)
        self._lock = threading.Lock()

    def add(self, role: str, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Add one request."""
        with self._lock:
            usage = self._usage[role, model]
            usage.requests += 1
            usage.prompt_tokens += prompt_tokens
            usage.completion_tokens += completion_tokens

    def check_limit(self) -> None:
        """Raise CostLimitError when the limit is spent."""
        if self.max_cost_usd is not None and self.cost_usd >= self.max_cost_usd:
            raise CostLimitError(
                f"The cost limit of ${self.max_cost_usd:g} is reached (${self.cost_usd:.4f} spent)."
            )

    @property
    def cost_usd(self) -> float:
        """Dollars spent so far."""
        with self._lock:
            return sum(
                (usage.prompt_tokens * price[0] + usage.completion_tokens * price[1]) / 1e6
                for (_, model), usage in self._usage.items()
                if (price := self._prices.get(model))
            )

    def by_role(self) -> dict[str, Usage]:
        """Return the sums of each role."""
        sums: dict[str, Usage] = defaultdict(Usage)
        with self._lock:
            for (role, _), usage in self._usage.items():
                sums[role].requests += usage.requests
                sums[role].prompt_tokens += usage.prompt_tokens
                sums[role].completion_tokens += usage.completion_tokens
        return dict(sums)
