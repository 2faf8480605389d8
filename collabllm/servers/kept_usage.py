"""Tokens and dollars of an evaluation, a build or a page over all its runs, kept across kills."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collabllm.files import read_json_object, write_text
from collabllm.servers.usage import UsageLedger

USAGE_FILE = "usage.json"


def read_usage(folder: Path) -> UsageLedger:
    """Return what a folder's runs have used so far, one that was killed included."""
    ledger = UsageLedger()
    _restore(folder, ledger)
    return ledger


@contextmanager
def keep_usage(folder: Path, ledger: UsageLedger, *, is_new: bool = False) -> Iterator[None]:
    """Let a ledger count on from the former runs in a folder, and keep what it counts.

    Each request is written at once, so that a kill loses none. Prices of former runs hold for
    models that have no new ones.

    Args:
        folder: Folder of the runs, which no other process uses.
        ledger: Ledger of this run.
        is_new: Forget former runs, of which the folder has nothing else any more.
    """
    if is_new:
        for file in (folder / USAGE_FILE, *folder.glob(".usage-*.jsonl")):
            file.unlink(missing_ok=True)
    part = _restore(folder, ledger)
    _write(folder, ledger, part)
    _journal(folder, part).unlink(missing_ok=True)
    ledger.start_journal(_journal(folder, part + 1))
    try:
        yield
    finally:
        _write(folder, ledger, part + 1)
        ledger.stop_journal()


def _journal(folder: Path, part: int) -> Path:
    """Return the journal of a run; the sums of the runs before it are in the usage file."""
    return folder / f".usage-{part}.jsonl"


def _restore(folder: Path, ledger: UsageLedger) -> int:
    """Add what was used, and return the number of the run that is last, or was killed."""
    file = folder / USAGE_FILE
    found = read_json_object(file) if file.is_file() else {}
    ledger.add_prices(found.get("prices", {}))
    ledger.restore(found.get("entries", ()))
    part = int(found.get("num_parts", 0)) + 1
    if _journal(folder, part).is_file():
        ledger.restore_journal(_journal(folder, part))
    return part


def _write(folder: Path, ledger: UsageLedger, num_parts: int) -> None:
    content = {
        "entries": ledger.to_entries(),
        "cost_usd": ledger.cost_usd,
        "prices": ledger.own_prices,
        "num_parts": num_parts,
    }
    write_text(folder / USAGE_FILE, json.dumps(content, indent=1) + "\n")
