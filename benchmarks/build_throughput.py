"""Candidates scored a minute: the data engine against one candidate and one future at a time.

The user is a server on loopback that answers after half a second; the assistant is the bundled
model, greedy, with a fixed reply length, so that both ways write the same tokens for a candidate.

uv run python benchmarks/build_throughput.py [--num_tasks 12] [--num_baseline_tasks 2]
"""

import argparse
import threading
import time
from collections.abc import Sequence
from http.server import ThreadingHTTPServer

from baseline_rollouts import generate
from rich.console import Console
from rich.table import Table
from rollout_throughput import FixedLength
from user_server import UserServer

from collabllm.data_engine import GrowthSettings, grow_conversations
from collabllm.data_processing import DEFAULT_SYSTEM_PROMPT
from collabllm.hub import BUNDLED_MODEL
from collabllm.logging_utils import configure_logging
from collabllm.messages import Message
from collabllm.models import load_base_model, load_tokenizer
from collabllm.rewards import RewardSettings, multiturn_reward
from collabllm.simulation import Assistant, OpenAIClient, OpenAIUserModel
from collabllm.simulation.batch import UserFactory
from collabllm.tasks import Task, demo_tasks

WEIGHTS = {"repetition": 1.0}


class OneAtATime(Assistant):
    """Plain `generate` for one conversation, encoding all of it each time."""

    def __init__(self, max_new_tokens: int) -> None:
        self.model = load_base_model(BUNDLED_MODEL).eval()
        self.tokenizer = load_tokenizer(BUNDLED_MODEL)
        self.max_new_tokens = max_new_tokens

    def generate(self, messages: Sequence[Message]) -> str:
        """Answer."""
        (text,), _ = generate(self.model, self.tokenizer, [list(messages)], self.max_new_tokens)
        return text


class Distinct(FixedLength):
    """Numbers its replies: greedy candidates would all be one."""

    count = 0

    async def agenerate(self, messages, *, seed=None):  # type: ignore[no-untyped-def]
        """Generate, and put a number in front."""
        reply = await super().agenerate(messages, seed=seed)
        self.count += 1
        return type(reply)(f"{self.count}. {reply.text}", 0, reply.completion_tokens)


def main() -> None:
    """Measure both ways and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_tasks", type=int, default=12)
    parser.add_argument("--num_baseline_tasks", type=int, default=2)
    parser.add_argument("--num_candidates", type=int, default=3)
    parser.add_argument("--num_samples", type=int, default=2)
    parser.add_argument("--max_new_tokens", type=int, default=48)
    args = parser.parse_args()
    configure_logging()
    ThreadingHTTPServer.request_queue_size = 256
    server = ThreadingHTTPServer(("127.0.0.1", 0), UserServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = OpenAIClient(f"http://127.0.0.1:{server.server_port}/v1", "none")

    def make_user(task: Task, seed: int) -> OpenAIUserModel:
        return OpenAIUserModel("", task.single_turn_prompt, "user", client=client)

    goals = [task.single_turn_prompt for task in demo_tasks()]
    tasks = [Task(str(i), f"conversation number {i}: {goal}") for i, goal in enumerate(goals)]
    slow = measure_one_at_a_time(tasks[: args.num_baseline_tasks], make_user, args)
    fast = measure_ours(tasks[: args.num_tasks], make_user, args)
    table = Table(title=f"1 turn, window 1, {args.num_samples} futures a candidate")
    for column in ("way", "candidates", "seconds", "candidates/min", "times"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, (number, seconds) in (("one at a time", slow), ("build_dataset", fast)):
        rate = 60 * number / seconds
        times = rate / (60 * slow[0] / slow[1])
        table.add_row(name, str(number), f"{seconds:.1f}", f"{rate:.1f}", f"{times:.1f}")
    Console().print(table)
    server.shutdown()


def measure_one_at_a_time(
    tasks: Sequence[Task], make_user: UserFactory, args: argparse.Namespace
) -> tuple[int, float]:
    """Write and score one candidate after another, one future after another."""
    assistant = OneAtATime(args.max_new_tokens)
    started = time.perf_counter()
    for task in tasks:
        opening = make_user(task, 0).generate([]).response
        context: list[Message] = [
            {"role": "system", "content": DEFAULT_SYSTEM_PROMPT},
            {"role": "user", "content": opening},
        ]
        for _ in range(args.num_candidates):
            reply = assistant.generate(context)
            for sample in range(args.num_samples):
                multiturn_reward(
                    reply,
                    context,
                    task,
                    assistant,
                    make_user,
                    weights=WEIGHTS,
                    window=1,
                    num_samples=1,
                    seed=sample,
                )
    return len(tasks) * args.num_candidates, time.perf_counter() - started


def measure_ours(
    tasks: Sequence[Task], make_user: UserFactory, args: argparse.Namespace
) -> tuple[int, float]:
    """Build one turn of every task."""
    settings = GrowthSettings(
        RewardSettings(WEIGHTS, window=1, num_samples=args.num_samples),
        num_candidates=args.num_candidates,
        max_turns=1,
    )
    with Distinct(BUNDLED_MODEL, max_new_tokens=args.max_new_tokens, do_sample=False) as assistant:
        started = time.perf_counter()
        groups = list(grow_conversations(tasks, assistant, make_user, settings, concurrency=32))
        seconds = time.perf_counter() - started
    return sum(len(group.candidates) for group in groups), seconds


if __name__ == "__main__":
    main()
