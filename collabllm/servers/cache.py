"""A content-addressed cache of server answers on disk, to repeat a run without a server."""

import contextlib
import hashlib
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from collabllm.errors import ReplayMissError

_BATCH_S = 0.1
_USELESS = "is_useless"


class ResponseCache:
    """Stores answers by a hash of the whole request: server, adapter, messages, settings, seed.

    A thread of its own writes them, many in one transaction, so that no caller waits for the disk.

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
        self._path = Path(path)
        self._lock = threading.Lock()
        self._reader = self._connect()
        self._pending: dict[str, str] = {}  # put, and perhaps not on the disk yet
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._writer: threading.Thread | None = None
        if mode == "record":
            with self._reader:
                self._reader.execute("PRAGMA journal_mode = WAL")
                self._reader.execute(
                    "CREATE TABLE IF NOT EXISTS answers "
                    "(key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
                )
            self._writer = threading.Thread(target=self._write, name="collabllm-cache", daemon=True)
            self._writer.start()

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the stored answer, or None where there is none to be had.

        An answer that was of no use is asked for again, unless the cache is replayed.

        Raises:
            ReplayMissError: If nothing is stored and the cache is replayed.
        """
        key = _key(request)
        with self._lock:
            text = self._pending.get(key)
            if text is None:
                query = "SELECT answer FROM answers WHERE key = ?"
                row = self._reader.execute(query, (key,)).fetchone()
                text = row[0] if row else None
        if text is not None:
            answer: dict[str, Any] = json.loads(text)
            is_useless = answer.pop(_USELESS, False)
            return answer if self.mode == "replay" or not is_useless else None
        if self.mode == "replay":
            raise ReplayMissError("The replayed cache has no answer to this request; record again.")
        return None

    def put(
        self, request: Mapping[str, Any], answer: Mapping[str, Any], *, is_useless: bool = False
    ) -> None:
        """Store an answer; it can be read at once and is on the disk a moment later.

        Args:
            request: Of which a hash is stored.
            answer: JSON values.
            is_useless: Keep the answer for a replay alone.

        Raises:
            OSError: If an earlier answer could not be written.
        """
        self._check()
        key = _key(request)
        with self._lock:
            self._pending[key] = json.dumps({**answer, **({_USELESS: True} if is_useless else {})})
        self._queue.put(key)

    def close(self) -> None:
        """Write what is left, and close the file.

        Raises:
            OSError: If an answer could not be written.
        """
        if self._writer:
            self._queue.put(None)
            self._writer.join()
            # One plain file that can be copied, and read where nothing may be written.
            with contextlib.suppress(sqlite3.OperationalError):
                self._reader.execute("PRAGMA journal_mode = DELETE")
        self._reader.close()
        self._check()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60, check_same_thread=False)

    def _check(self) -> None:
        if self._failure:
            raise OSError(f"{self._path}: the cache cannot be written ({self._failure}).")

    def _write(self) -> None:
        """Write what was put, in one transaction for all that comes within a tenth of a second."""
        with contextlib.closing(self._connect()) as database:
            database.execute("PRAGMA synchronous = NORMAL")
            while (key := self._queue.get()) is not None:
                time.sleep(_BATCH_S)
                keys = [key]
                while not self._queue.empty() and (key := self._queue.get()) is not None:
                    keys.append(key)
                try:
                    self._commit(database, keys)
                except sqlite3.Error as error:
                    self._failure = error
                    return
                if key is None:
                    return

    def _commit(self, database: sqlite3.Connection, keys: list[str]) -> None:
        with self._lock:
            rows = [(key, self._pending[key]) for key in set(keys) & self._pending.keys()]
        with database:
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        with self._lock:
            for key, text in rows:
                if self._pending.get(key) == text:
                    del self._pending[key]


def _key(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
