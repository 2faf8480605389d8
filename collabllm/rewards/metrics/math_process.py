"""math-verify in processes of its own: it may hang, and its time limits need a main thread."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from collabllm.rewards.registry import MetricMissingError

LIMIT_S = 30.0
"""Wall-clock seconds of one comparison; then its process is killed."""
START_LIMIT_S = 300.0
"""Of its start, which loads the library."""

_WORKER = Path(__file__).with_name("math_worker.py")
_MAX_PROCESSES = 8


class MathProcesses:
    """Compares answers in up to `number` processes, each started when it is needed.

    Args:
        number: Most processes.
        limit_s: Wall-clock seconds of a comparison.
    """

    def __init__(self, number: int, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._idle: queue.LifoQueue[subprocess.Popen[str] | None] = queue.LifoQueue()
        for _ in range(number):
            self._idle.put(None)

    def verify(self, reference: str, reply: str) -> bool:
        """Return whether the reply's last answer equals the reference; waits for a free process.

        Raises:
            MetricMissingError: If the reference is unreadable, the process fails, or time is up.
        """
        process = self._idle.get()
        answer, is_fit = None, False
        try:
            if process is None or process.poll() is not None:
                process = _start()
            with _killed_after(process, self.limit_s):
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps([reference, reply]) + "\n")
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
            is_fit = True
        except (OSError, json.JSONDecodeError) as error:
            text = f"math-verify failed, or took longer than {self.limit_s:g} s"
            raise MetricMissingError(text) from error
        finally:
            if process and not is_fit:  # an interrupted one would give its answer to the next
                process.kill()
                process.wait()
            self._idle.put(process if is_fit else None)
        if answer is None:
            raise MetricMissingError("math-verify cannot read the reference")
        return bool(answer)


def _start() -> subprocess.Popen[str]:
    """Return a process that is ready: to load takes long, not to compare."""
    process = subprocess.Popen(
        [sys.executable, "-I", str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with _killed_after(process, START_LIMIT_S):
        assert process.stdout is not None
        process.stdout.readline()
    return process


@contextmanager
def _killed_after(process: subprocess.Popen[str], limit_s: float) -> Iterator[None]:
    timer = threading.Timer(limit_s, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@lru_cache(maxsize=1)
def math_processes() -> MathProcesses:
    """Return the processes of this run: one a core, at most 8."""
    return MathProcesses(min(len(os.sched_getaffinity(0)), _MAX_PROCESSES))
