"""The metric of answers: is the final one right."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from collabllm.event_loop import run_blocking
from collabllm.messages import Message
from collabllm.rewards.extraction import find_answer, find_boxed
from collabllm.rewards.registry import (
    MetricMissingError,
    MetricTools,
    NotApplicableError,
    last_reply,
    metric,
)
from collabllm.tasks import Task

_WORKER = Path(__file__).with_name("math_worker.py")


@metric("accuracy")
async def accuracy(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    r"""Compare the last reply's answer with the reference: 1 when they agree, else 0.

    A mathematical reference (numbers, formulas, `\boxed{}`) is compared by math-verify, as
    mathematics. Any other one is compared as text, without case, punctuation and articles: a marked
    answer ("the answer is …") must equal it, else the reply must contain it as whole words.
    """
    reference = task.single_turn_completion.strip()
    if not reference:
        raise NotApplicableError("the task has no reference (single_turn_completion)")
    reply = last_reply(conversation)
    if is_mathematical(reference):
        boxed = find_boxed(reference)
        expected = boxed if boxed is not None else reference
        return float(await run_blocking(_math_process().verify, expected, reply))
    answer, expected = find_answer(reply), _normalize(reference)
    if answer is not None and _normalize(answer) == expected:
        return 1.0
    if answer is not None:
        return 0.0
    return float(f" {expected} " in f" {_normalize(reply)} ")


def is_mathematical(reference: str) -> bool:
    r"""Tell whether a reference is a number or a formula: `\boxed{}`, or no word of 3 letters."""
    if "\\boxed{" in reference:
        return True
    without_commands = re.sub(r"\\[a-zA-Z]+|\b(?:sin|cos|tan|log|sqrt|pi)\b", " ", reference)
    has_signs = re.search(r"[\d\\^=+*/]", reference) is not None
    return has_signs and re.search(r"[A-Za-z]{3,}", without_commands) is None


def _normalize(text: str) -> str:
    words = re.sub(r"[^\w\s]", " ", text.casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


class _MathProcess:
    """math-verify in a process of its own: its time limits need a main thread, and it may hang."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def verify(self, reference: str, reply: str) -> bool:
        """Ask the process; it is started when needed.

        Raises:
            MetricMissingError: If it fails; the next call starts another one.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", str(_WORKER)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps([reference, reply]) + "\n")
                self._process.stdin.flush()
                answer = json.loads(self._process.stdout.readline())
            except (OSError, json.JSONDecodeError) as error:
                self._process.kill()
                self._process = None
                raise MetricMissingError("math-verify's process failed") from error
        if answer is None:
            raise MetricMissingError("math-verify cannot read the reference, or took too long")
        return bool(answer)


@lru_cache(maxsize=1)
def _math_process() -> _MathProcess:
    return _MathProcess()
