"""Many conversations with an engine that only waits: what the driver itself costs, and a resume.

The engine answers after a time of its own (log-normal, median --latency_s), so what is measured
is this program: conversations per second, memory as the run grows, bytes written, seconds until a
resume of the finished file knows that nothing is left. Each size runs in a process of its own. The
facts have cue words, so no sentence encoder takes part; --matcher semantic measures it, too.

uv run python benchmarks/scale.py --num_conversations 500 5000 20000 100000
"""

import argparse
import asyncio
import hashlib
import math
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collabllm.messages import Message
from collabllm.simulation import Assistant, simulate
from collabllm.simulation.assistant.base import AssistantReply
from collabllm.simulation.user_models.registry import to_user_spec
from collabllm.tasks import Fact, Task

_WORDS = "we could first look at the plan and then decide what is needed by when".split()


class WaitingEngine(Assistant):
    """Replies of 60 words after a time drawn for each call."""

    name = "waiting"

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> AssistantReply:
        """Wait, and ask for something."""
        text = f"{seed}{messages[-1]['content']}"
        rng = random.Random(hashlib.sha256(text.encode()).digest())
        await asyncio.sleep(self.latency_s * math.exp(rng.gauss(0, 0.5)))
        words = " ".join(rng.choices(_WORDS, k=60))
        return AssistantReply(f"{words}. Which budget do you have in mind?", 300, 80)


def _tasks(number: int) -> list[Task]:
    facts = (
        Fact("budget", "My budget is 400 euros.", cues=("budget",)),
        Fact("date", "It is in June.", cues=("date",)),
    )
    return [Task(f"task {i}", f"Plan event number {i}.", facts=facts) for i in range(number)]


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(number: int, options: argparse.Namespace) -> None:
    """Simulate so many conversations, resume, and print one line."""
    user_factory = to_user_spec(f"matcher={options.matcher}").build_factory(lambda url: None)  # type: ignore[arg-type, return-value]
    given: dict[str, Any] = {"max_turns": 3, "concurrency": options.concurrency, "progress": False}
    for _ in simulate(_tasks(2), WaitingEngine(0), user_factory, **given):
        pass  # imports, and an encoder if one is used, are no part of the figures
    tasks = _tasks(number)
    with tempfile.TemporaryDirectory() as folder:
        given["output"] = output = Path(folder) / "transcripts.jsonl"
        started, cpu, early = time.perf_counter(), time.process_time(), 0.0
        records = simulate(tasks, WaitingEngine(options.latency_s), user_factory, **given)
        for done, _ in enumerate(records, 1):
            if done == max(number // 10, 1):
                early = _rss_mb()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        late, size = _rss_mb(), output.stat().st_size / 1e6
        started = time.perf_counter()
        left = list(simulate(tasks, WaitingEngine(0), user_factory, resume=True, **given))
        resumed = time.perf_counter() - started
    assert not left, f"{len(left)} conversations ran again"
    print(
        f"| {number:,} | {number / seconds:.0f} | {1000 * cpu / number:.2f} | {early:.0f} | "
        f"{late:.0f} | {size:.0f} | {resumed:.1f} |",
        flush=True,
    )


def main() -> None:
    """Print one line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_conversations", type=int, nargs="+", default=[500, 5000, 20_000])
    parser.add_argument("--concurrency", type=int, default=1000)
    parser.add_argument("--latency_s", type=float, default=2.0)
    parser.add_argument("--matcher", default="auto")
    options = parser.parse_args()
    print(
        "| conversations | conv/s | CPU ms each | RSS MB at 10% | at 100% | MB on disk | resume s |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for number in options.num_conversations:
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(number, options)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
