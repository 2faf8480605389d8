"""Many conversations with an engine that only waits: what the driver itself costs, and a resume.

The engine answers after a time of its own (log-normal, median --latency_s), so what is measured
is this program: conversations a second, memory as the run grows, bytes written, seconds until a
resume of the finished file is ready to go on.

uv run python benchmarks/scale.py --num_conversations 1000 10000 100000
"""

import argparse
import asyncio
import hashlib
import math
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

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
    facts = (Fact("budget", "My budget is 400 euros."), Fact("date", "It is in June."))
    return [Task(f"task {i}", f"Plan event number {i}.", facts=facts) for i in range(number)]


def _rss_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_conversations", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--concurrency", type=int, default=2000)
    parser.add_argument("--latency_s", type=float, default=2.0)
    options = parser.parse_args()
    user_factory = to_user_spec("sharded").build_factory(None)
    print(
        "| conversations | conv/s | CPU ms each | RSS MB at 10% | at 100% | MB on disk | resume s |"
    )
    print("|---|---|---|---|---|---|---|")
    for number in options.num_conversations:
        tasks = _tasks(number)
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "transcripts.jsonl"
            given = {"max_turns": 3, "concurrency": options.concurrency, "output": output}
            started, cpu, early = time.perf_counter(), time.process_time(), 0.0
            records = simulate(
                tasks, WaitingEngine(options.latency_s), user_factory, progress=False, **given
            )
            for done, _ in enumerate(records, 1):
                if done == max(number // 10, 1):
                    early = _rss_mb()
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            late, size = _rss_mb(), output.stat().st_size / 1e6
            started = time.perf_counter()
            engine = WaitingEngine(0)
            again = simulate(tasks, engine, user_factory, resume=True, progress=False, **given)
            assert list(again) == []
            resumed = time.perf_counter() - started
        print(
            f"| {number:,} | {number / seconds:.0f} | {1000 * cpu / number:.2f} | {early:.0f} | "
            f"{late:.0f} | {size:.0f} | {resumed:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
