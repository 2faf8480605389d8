"""Conversations with an assistant behind a server: requests/s, CPU a request, memory.

The server is a process of its own that answers each request after 0.2 s; the user is rule-based,
so that nearly all of the work is the client's and the simulator's.

uv run python benchmarks/client_throughput.py [--num_conversations 2000 10000] [--concurrency 500]
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from collabllm.simulation import OpenAIAssistant, OpenAIClient, RuleBasedUser, simulate
from collabllm.tasks import Task, demo_tasks

REPLY = "Thank you. To go on I need to know more: which of the details that you have matters most?"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_conversations", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--max_turns", type=int, default=3)
    parser.add_argument("--delay_s", type=float, default=0.2)
    parser.add_argument("--serve", action="store_true", help="be the server")
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.delay_s))
        return
    command = [sys.executable, __file__, "--serve", "--delay_s", str(args.delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base_url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        table = Table(title=f"{args.concurrency} conversations at once, {args.delay_s:g} s a reply")
        for column in ("conversations", "requests", "requests/s", "CPU ms a request", "peak MB"):
            table.add_column(column, justify="right")
        try:
            measure(base_url, args.concurrency, args)  # connects, imports, compiles
            for number in args.num_conversations:
                table.add_row(*measure(base_url, number, args))
        finally:
            server.terminate()
    Console().print(table)


def measure(base_url: str, num_conversations: int, args: argparse.Namespace) -> list[str]:
    """Simulate, and return a row of the table."""
    demo = demo_tasks()
    tasks = [
        Task(str(idx), demo[idx % len(demo)].single_turn_prompt) for idx in range(num_conversations)
    ]
    client = OpenAIClient(base_url, "none", max_concurrency=args.concurrency)
    cpu, started = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        records = simulate(
            tasks,
            OpenAIAssistant("model", client=client),
            lambda task, seed: RuleBasedUser((), task.single_turn_prompt),
            max_turns=args.max_turns,
            concurrency=args.concurrency,
            output=Path(folder) / "records.jsonl",
            progress=False,
        )
        assert sum(1 for _ in records) == num_conversations
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    requests = client.ledger.by_role()["assistant"].requests
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        f"{num_conversations:,}",
        f"{requests:,}",
        f"{requests / seconds:.0f}",
        f"{1000 * cpu / requests:.2f}",
        f"{peak_mb:.0f}",
    ]


async def serve(delay_s: float) -> None:
    """Answer completions after a delay, by as little work as possible; print the port."""
    usage = {"prompt_tokens": 100, "completion_tokens": 25, "total_tokens": 125}
    choice = {"index": 0, "message": {"role": "assistant", "content": REPLY}}
    content = {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
    content |= {"id": "1", "object": "chat.completion", "created": 0, "model": "model"}
    body = json.dumps(content).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                length = next(line for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                await asyncio.sleep(delay_s)
                writer.write(head % len(body) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    main()
