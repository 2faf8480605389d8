"""Start a model server, wait until it answers, and stop it with all that it started."""

import atexit
import contextlib
import logging
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2

from collabllm.errors import ServerError

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_STOP_TIMEOUT_S = 20.0
_TAIL_LINES = 20
_PORTS = range(20_000, 32_768)  # below those that systems give to whoever asks for any
_MAX_PORTS_TRIED = 100
_ERROR = re.compile(r"\w(Error|Exception): ")
# Runs the command, and ends its whole process group when the input ends, which happens however
# this process ends: first by SIGTERM, after a while by SIGKILL.
_WATCH = """
exec 3<&0
trap : TERM
"$@" </dev/null & server=$!
(trap "" TERM; cat >/dev/null; kill 0; sleep 20; kill -9 0) <&3 &
wait $server; status=$?
while kill -0 $server 2>/dev/null; do wait $server; status=$?; done
exit $status
"""


def free_port() -> int:
    """Return a port of this machine that nobody listens at, for a server that starts later.

    Raises:
        OSError: If no port can be had.
    """
    # Not by the global seed, which trainers set: runs side by side would choose alike.
    for port in random.SystemRandom().sample(_PORTS, _MAX_PORTS_TRIED):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"None of {_MAX_PORTS_TRIED} ports of 127.0.0.1 could be bound.")


class ServerProcess:
    """A server in a process group of its own, which ends when this process does, even by SIGKILL.

    Args:
        words: The command.
        url: Where it will answer `/health`.
        start_timeout_s: Seconds until it has to.
        environment: Variables added to this process's own.

    Raises:
        ServerError: If it ends or does not answer in time, with the end of its log.
    """

    def __init__(
        self,
        words: Sequence[str],
        url: str,
        start_timeout_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.url, self._command = url, shlex.join(words)
        handle, name = tempfile.mkstemp(prefix="collabllm-server-", suffix=".log")
        self.log = Path(name)
        logger.info("Starting %s; its log is %s", self._command, self.log)
        with os.fdopen(handle, "wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "sh", *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        atexit.register(self.stop)
        try:
            self._wait(start_timeout_s)
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Do nothing while the server runs.

        Raises:
            ServerError: If it has ended, with the end of its log.
        """
        if (status := self._process.poll()) is not None:
            raise ServerError(f"{self._command} ended with status {status}. {self._tail()}")

    def _wait(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(_POLL_S)
        raise ServerError(f"{self._command} did not answer within {timeout_s:g} s. {self._tail()}")

    def _tail(self) -> str:
        """Give the end of the log, after the first error where that stands before it."""
        lines = self.log.read_text(errors="replace").splitlines()
        before, end = lines[:-_TAIL_LINES], "\n".join(["Its log ends:", *lines[-_TAIL_LINES:]])
        first = next((line for line in before if _ERROR.search(line)), None)
        return f"The first error in its log:\n{first}\n{end}" if first else end

    def stop(self) -> None:
        """End the server and all that it started; a second call does nothing."""
        atexit.unregister(self.stop)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            logger.warning("The server did not end by itself; it is killed.")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.log.unlink(missing_ok=True)
