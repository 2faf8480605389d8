"""Count tokens and cost by role, model and server, and stop at a cost limit."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from collabllm.errors import CostLimitError
from collabllm.files import read_json_lines
from collabllm.servers.prices import Price, find_price, name_unpriced

UNANSWERED = (
    "{:,} requests were sent and their answers never read; the server may have counted them"
)


@dataclass
class Usage:
    """Requests and tokens of one role with one model on one server.

    `unanswered` counts requests that were sent and whose answer was never read: it came too late,
    broke off, or met a process that was gone. The server may have counted them, and charge.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unanswered: int = 0

    def add(self, other: "Usage") -> None:
        """Add another's numbers to these."""
        self.requests += other.requests
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.unanswered += other.unanswered


def usage_line(name: str, used: Usage) -> str:
    """Say what a role or a server has used."""
    return (
        f"{name}: {used.requests:,} requests, {used.prompt_tokens:,} prompt and "
        f"{used.completion_tokens:,} completion tokens"
    )


class UsageLedger:
    """Adds up usage from any thread.

    Args:
        max_cost_usd: No further request starts once this is spent; those under way still end and
            count. None for no limit.
        prices: Dollars a million tokens (prompt, completion) by model; they win over the kept list.
    """

    def __init__(
        self, max_cost_usd: float | None = None, prices: Mapping[str, Price] | None = None
    ) -> None:
        self.max_cost_usd = max_cost_usd
        self.own_prices = dict(prices or {})
        self._prices: dict[str, Price | None] = {}
        self._usage: dict[tuple[str, str, str], Usage] = defaultdict(Usage)
        self._lock = threading.Lock()
        self._journal: IO[bytes] | None = None

    def add(
        self, role: str, model: str, prompt_tokens: int, completion_tokens: int, server: str = ""
    ) -> None:
        """Add one request."""
        self._count((role, model, server), Usage(1, prompt_tokens, completion_tokens))

    def count_sent(self, role: str, model: str, server: str) -> None:
        """Count a request as unanswered; it stays so if its answer is never read."""
        self._count((role, model, server), Usage(unanswered=1))

    def count_answered(
        self, role: str, model: str, server: str, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Count the answer to a request that was sent."""
        used = Usage(1, prompt_tokens, completion_tokens, unanswered=-1)
        self._count((role, model, server), used)

    def count_refused(self, role: str, model: str, server: str) -> None:
        """Take back a request that was refused, or never reached a server."""
        self._count((role, model, server), Usage(unanswered=-1))

    def _count(self, key: tuple[str, str, str], used: Usage) -> None:
        """Add to the sums and, in one line, to the journal, so that a kill parts neither."""
        with self._lock:
            self._usage[key].add(used)
            if self._journal:
                line = json.dumps({"entry": [*key, *vars(used).values()]})
                self._journal.write(line.encode() + b"\n")

    def to_entries(self) -> list[list[Any]]:
        """Return all that was counted: role, model, server, and the numbers of its `Usage`."""
        with self._lock:
            return [[*key, *vars(usage).values()] for key, usage in self._usage.items()]

    def restore(self, entries: Iterable[Iterable[Any]]) -> None:
        """Add what an earlier part of a run counted, as `to_entries` gave it."""
        with self._lock:
            for role, model, server, *numbers in entries:
                self._usage[role, model, server].add(Usage(*numbers))

    def restore_journal(self, path: str | Path) -> None:
        """Add what the journal of a killed part of a run says."""
        self.restore(line["entry"] for line in read_json_lines(path))

    def start_journal(self, path: str | Path) -> None:
        """Write each request to a file at once, from now on, so that a killed run can restore it.

        Raises:
            FileExistsError: If there is such a file.
        """
        self._journal = Path(path).open("xb", buffering=0)  # noqa: SIM115

    def stop_journal(self) -> None:
        """Close the journal and remove it: what it says is kept elsewhere by now."""
        if self._journal:
            self._journal.close()
            Path(self._journal.name).unlink(missing_ok=True)
            self._journal = None

    def add_prices(self, prices: Mapping[str, Price]) -> None:
        """Take prices of an earlier part of a run, for models that have none of their own now."""
        self.own_prices = {**prices, **self.own_prices}
        self._prices.clear()

    def price(self, model: str) -> Price | None:
        """Return the price of a model, or None where there is none."""
        if model not in self._prices:
            self._prices[model] = find_price(model, self.own_prices)
        return self._prices[model]

    def require_prices(self, models: Iterable[str]) -> None:
        """Refuse models that a cost limit could not limit; without a limit all are welcome.

        Raises:
            ValueError: If a model has no price.
        """
        missing = [model for model in models if self.price(model) is None]
        if self.max_cost_usd is not None and missing:
            example = json.dumps({model: [0.15, 0.6] for model in missing})
            raise ValueError(
                f"A limit of ${self.max_cost_usd:g} needs the price of {', '.join(missing)}: give "
                f"dollars a million tokens (prompt, completion), as in --prices '{example}', or "
                "[0, 0] for a server of your own."
            )

    def check_limit(self, model: str | None = None) -> None:
        """Let a request pass, or not.

        Raises:
            CostLimitError: If the limit is spent.
            ValueError: If there is a limit and the model has no price.
        """
        if self.max_cost_usd is None:
            return
        if model is not None:
            self.require_prices([model])
        if self.cost_usd >= self.max_cost_usd:
            raise CostLimitError(
                f"The cost limit of ${self.max_cost_usd:g} is reached (${self.cost_usd:.4f} spent)."
            )

    @property
    def cost_usd(self) -> float:
        """Dollars spent so far."""
        with self._lock:
            return sum(
                (usage.prompt_tokens * price[0] + usage.completion_tokens * price[1]) / 1e6
                for (_, model, _), usage in self._usage.items()
                if (price := self.price(model))
            )

    @property
    def without_price(self) -> list[str]:
        """Models that were used and that the cost leaves out."""
        with self._lock:
            models = {model for _, model, _ in self._usage}
        return sorted(model for model in models if self.price(model) is None)

    def describe_cost(self) -> str:
        """Say what was spent, and which models that leaves out."""
        return f"${self.cost_usd:.4f}{name_unpriced(self.without_price)}"

    def cost_line(self) -> str:
        """Return a line with what was spent; nothing where nothing was."""
        return f"Cost: {self.describe_cost()}" if self.cost_usd else ""

    @property
    def num_unanswered(self) -> int:
        """Requests that were sent and whose answer was never read; see `Usage`."""
        with self._lock:
            return sum(usage.unanswered for usage in self._usage.values())

    def by_role(self) -> dict[str, Usage]:
        """Return the sums of each role."""
        return self._sums(0)

    def by_server(self) -> dict[str, Usage]:
        """Return the sums of each server."""
        return self._sums(2)

    def to_lines(self) -> list[str]:
        """Say what each role has used, and each server where there are several."""
        return [usage_line(name, used) for name, used in self.sums().items()]

    def sums(self) -> dict[str, Usage]:
        """Return the sums of each role, and of each server where there are several."""
        servers = {f"server {url}": used for url, used in self.by_server().items() if url}
        return self.by_role() | (servers if len(servers) > 1 else {})

    def _sums(self, part: int) -> dict[str, Usage]:
        sums: dict[str, Usage] = defaultdict(Usage)
        with self._lock:
            for key, usage in self._usage.items():
                sums[key[part]].add(usage)
        return dict(sums)
