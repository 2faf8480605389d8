"""Tokens and dollars of an evaluation over all its runs, kept across kills."""

import json
import time
from pathlib import Path

from collabllm.files import write_text
from collabllm.servers.usage import UsageLedger

USAGE_FILE = "usage.json"
_EVERY_S = 5.0


def read_usage(folder: Path) -> tuple[dict[str, dict[str, int]], float]:
    """Return tokens by role and dollars that an evaluation has used so far."""
    file = folder / USAGE_FILE
    if not file.is_file():
        return {}, 0.0
    found = json.loads(file.read_text(encoding="utf-8"))
    return found["usage"], found["cost_usd"]


class UsageFile:
    """Adds what this run uses to what the former ones used; a kill loses a few seconds of it.

    Args:
        folder: Of the evaluation.
        ledger: Of this run.
    """

    def __init__(self, folder: Path, ledger: UsageLedger) -> None:
        self.folder, self.ledger = folder, ledger
        self._usage, self._cost_usd = read_usage(folder)
        self._written_at = 0.0

    def keep(self) -> None:
        """Write the file, but at most every few seconds."""
        if time.monotonic() - self._written_at >= _EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the file."""
        usage = {role: dict(counts) for role, counts in self._usage.items()}
        for role, used in self.ledger.by_role().items():
            counts = usage.setdefault(role, {})
            for name, number in vars(used).items():
                counts[name] = counts.get(name, 0) + number
        content = {"usage": usage, "cost_usd": self._cost_usd + self.ledger.cost_usd}
        write_text(self.folder / USAGE_FILE, json.dumps(content, indent=1) + "\n")
        self._written_at = time.monotonic()
