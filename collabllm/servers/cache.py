"""A content-addressed cache of server answers on disk, to repeat a run without a server."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from collabllm.errors import ReplayMissError


class ResponseCache:
    """Stores answers by a hash of the whole request, seed included.

    Args:
        path: SQLite file.
        mode: `record` asks the server for what is missing and stores it; `replay` never asks.

    Raises:
        FileNotFoundError: If there is no file to replay.
    """

    def __init__(self, path: str | Path, mode: Literal["record", "replay"]) -> None:
        if mode not in ("record", "replay"):
            raise ValueError(f"mode must be 'record' or 'replay', got {mode!r}.")
        if mode == "replay" and not Path(path).is_file():
            raise FileNotFoundError(f"{path}: there is no recorded cache to replay.")
        self.mode = mode
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False)
        with self._lock, self._database:
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
            )

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the stored answer, or None where there is none to be had.

        Raises:
            ReplayMissError: If nothing is stored and the cache is replayed.
        """
        with self._lock:
            row = self._database.execute(
                "SELECT answer FROM answers WHERE key = ?", (_key(request),)
            ).fetchone()
        if row:
            answer: dict[str, Any] = json.loads(row[0])
            return answer
        if self.mode == "replay":
            raise ReplayMissError("The replayed cache has no answer to this request; record again.")
        return None

    def put(self, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Store an answer."""
        with self._lock, self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)",
                (_key(request), json.dumps(dict(answer))),
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _key(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
