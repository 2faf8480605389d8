"""The report of a simulation: endings, turns, cut replies, the user's faults, tokens, cost."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from collabllm.errors import IncompleteRunError
from collabllm.servers.usage import UNANSWERED, UsageLedger
from collabllm.simulation.audit import AuditRates

_MAX_CAUSE = 300


class RunReport:
    """Adds up the lines of a transcript file one at a time.

    Args:
        wanted: The conversations that the run is about: task and rollout.
    """

    def __init__(self, wanted: Iterable[tuple[str, int]]) -> None:
        self.missing = set(wanted)
        self.num_wanted = len(self.missing)
        self.endings: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.cause = ""
        self.num_cut = 0
        self.audits: defaultdict[str, AuditRates] = defaultdict(AuditRates)
        self._turns: defaultdict[str, int] = defaultdict(int)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add one conversation."""
        reason = line["termination_reason"]
        self.missing.discard((line["task_id"], line["rollout_idx"]))
        self.endings[reason] += 1
        if line["failed"]:
            self.failed[reason] += 1
            self.cause = self.cause or line["error"]
        self._turns[reason] += len(line["user_turns"])
        self.num_cut += sum(reply["finish_reason"] == "length" for reply in line.get("replies", ()))
        self.audits[line["user"]].add(line["audit"], line.get("user_measures"))

    def check_complete(self, how_to_go_on: str) -> None:
        """Tell in the end that conversations failed or are missing.

        Raises:
            IncompleteRunError: If so.
        """
        if not self.failed and not self.missing:
            return
        parts = [f"{number} ended as {reason}" for reason, number in self.failed.most_common()]
        if self.missing:
            parts.append(f"{len(self.missing)} were not started or were cancelled")
        why = f" ({self.cause[:_MAX_CAUSE]})" if self.cause else ""
        raise IncompleteRunError(
            f"Of {self.num_wanted} conversations {' and '.join(parts)}{why}. {how_to_go_on}"
        )

    def print(self, ledger: UsageLedger) -> None:
        """Print all, with what the run has used."""
        table = Table(title=f"{self.endings.total()} of {self.num_wanted} conversations")
        table.add_column("ending")
        table.add_column("number", justify="right")
        table.add_column("turns", justify="right")
        for reason, count in self.endings.most_common():
            table.add_row(reason, str(count), f"{self._turns[reason] / count:.1f}")
        console = Console()
        console.print(table)
        lines = []
        if self.num_cut:
            lines.append(f"Replies cut by --max_new_tokens: {self.num_cut}")
        lines += ledger.to_lines()
        if ledger.num_unanswered:
            lines.append(UNANSWERED.format(ledger.num_unanswered))
        lines += [f"User {user or '(none)'}. {rates}" for user, rates in self.audits.items()]
        if cost := ledger.cost_line():
            lines.append(cost)
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
