"""A run through a bad hour: one request in five fails, the server dies, kill -9, resume.

Two runs of scripts/simulate_chats.py on a server of its own on loopback. In the first the server is
killed and comes back; in the second the run itself is killed and resumed. Each is checked: all
conversations there, none twice, each about its own goal alone, and the requests in the run's ledger
those that the server counted, but for those whose answers the run says it never read.

uv run python benchmarks/bad_hour.py [--num_conversations 1000] [--runs both]
"""

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from collabllm.servers.process import free_port

ROOT = Path(__file__).parents[1]
MAX_TURNS = 2
NAMES = ("the server dies", "the run is killed", "both")
FAULTS = ("500", "429", "drop", "invalid", "stall")
_CODE = re.compile(r"C\d{5}")


def main() -> None:
    """Do both runs, check and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_conversations", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--fault_rate", type=float, default=0.2)
    parser.add_argument("--down_s", type=float, default=60.0)
    parser.add_argument("--timeout_s", type=float, default=30.0, help="of the run's requests")
    parser.add_argument("--runs", nargs="+", choices=NAMES, default=list(NAMES[:2]))
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    parser.add_argument("--log", help="the server's log of what it delivered")
    args = parser.parse_args()
    if args.serve:
        asyncio.run(Server(args.log, args.fault_rate, 1.2 * args.timeout_s).serve(args.serve))
        return
    for name in args.runs:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}: {run(name, Path(folder), args)}", flush=True)


def run(name: str, folder: Path, args: argparse.Namespace) -> str:
    """Do one run, and say what came of it.

    Raises:
        AssertionError: If a conversation is missing, double or not about its own goal.
    """
    tasks = [{"task_id": f"C{i:05}", "single_turn_prompt": f"code C{i:05}"} for i in
             range(args.num_conversations)]  # fmt: skip
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    port, started = free_port(), time.monotonic()
    server, client = start_server(port, folder, args), start_client(port, folder, args)
    try:
        wait_for(folder, args.num_conversations // 3, client)
        if name != "the run is killed":
            server.kill()
            server.wait()
            time.sleep(args.down_s)
            server = start_server(port, folder, args)
        if name == "both":
            wait_for(folder, args.num_conversations // 2, client)
        if name != "the server dies":
            client.send_signal(signal.SIGKILL)
            client.wait()
            client = start_client(port, folder, args, "--resume")
        status = client.wait(timeout=1800)
    finally:
        client.kill()
        server.kill()
        server.wait()
    return f"exit status {status}, {check(folder, tasks)}, {time.monotonic() - started:.0f} s"


def start_server(port: int, folder: Path, args: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Start the server as a process of its own."""
    words = f"--serve {port} --log {folder}/delivered.txt --fault_rate {args.fault_rate}"
    words += f" --timeout_s {args.timeout_s}"
    return subprocess.Popen([sys.executable, __file__, *words.split()])


def start_client(
    port: int, folder: Path, args: argparse.Namespace, *more: str
) -> "subprocess.Popen[bytes]":
    """Start the simulation as a process of its own."""
    url = f"http://127.0.0.1:{port}/v1"
    words = (
        f"--tasks {folder}/tasks.jsonl --assistant_model assistant --assistant_base_url {url} "
        f"--user openai --user_model user --user_base_url {url} --max_turns {MAX_TURNS} "
        f"--concurrency {args.concurrency} --timeout_s {args.timeout_s} --output_dir {folder}"
    )
    with (folder / "client.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "scripts/simulate_chats.py"), *words.split(), *more],
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )


def wait_for(folder: Path, number: int, client: "subprocess.Popen[bytes]") -> None:
    """Wait until so many conversations are in the file."""
    file = folder / "transcripts.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < number:
        assert client.poll() is None, (folder / "client.log").read_text()[-2000:]
        time.sleep(0.2)


def check(folder: Path, tasks: list[dict[str, str]]) -> str:
    """Check the transcripts, and compare the ledger with the server's count."""
    lines = [json.loads(line) for line in (folder / "transcripts.jsonl").open()]
    seen = Counter(line["task_id"] for line in lines)
    log = (folder / "client.log").read_text()[-2000:]
    assert set(seen) == {task["task_id"] for task in tasks}, f"conversations are missing\n{log}"
    assert set(seen.values()) == {1}, "conversations are there twice"
    for line in lines:
        spoken = [m for m in line["messages"] if m["role"] != "system"]
        assert [m["role"] for m in spoken] == ["user", "assistant"] * MAX_TURNS, line
        for turn, message in enumerate(spoken):
            assert _CODE.findall(message["content"]) == [line["task_id"]], line
            assert message["content"].endswith(f"turn {turn}"), line
    return f"{len(lines)} conversations; {compare(folder)}"


def compare(folder: Path) -> str:
    """Compare each role's requests and tokens in the run's ledger with what the server delivered.

    Raises:
        AssertionError: If the ledger has more than was delivered, or lacks more than the answers
            that it says were never read.
    """
    header = json.loads((folder / "transcripts.run.json").read_text())
    counted: dict[str, list[int]] = {}
    for text in (folder / "delivered.txt").read_text().splitlines():
        role, tokens = text.split()
        counts = counted.setdefault(role, [0, 0])
        counts[0], counts[1] = counts[0] + 1, counts[1] + int(tokens)
    parts = []
    for role, _, _, requests, tokens, _, unanswered in header["usage"]:
        delivered, delivered_tokens = counted[role]
        part = (
            f"{role}: ledger {requests} answered, {tokens} tokens, and {unanswered} sent whose "
            f"answer was never read; server {delivered} delivered, {delivered_tokens} tokens"
        )
        assert requests <= delivered <= requests + unanswered, part
        assert tokens <= delivered_tokens, part
        assert (requests == delivered) == (tokens == delivered_tokens), part
        parts.append(part)
    return "; ".join(parts)


class Server:
    """Answers by rule, with faults; writes a line for each answer that it sends.

    Args:
        log: The file to append to.
        fault_rate: Share of the requests that fail.
        stall_s: How long some of them stall.
    """

    def __init__(self, log: str, fault_rate: float, stall_s: float) -> None:
        self.log = Path(log).open("a", encoding="utf-8")  # noqa: SIM115
        self.random, self.fault_rate, self.stall_s = random.Random(), fault_rate, stall_s

    async def serve(self, port: int) -> None:
        """Answer until the process ends."""
        server = await asyncio.start_server(self.answer, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
                request = json.loads(await reader.readexactly(length))
                await asyncio.sleep(0.05)
                # A preflight, which names no conversation, has few tries: it would end one start in
                # sixty, and the run is what is measured.
                is_preflight = not _CODE.search(json.dumps(request["messages"]))
                if is_preflight or not await self.fail(writer):
                    content = self.complete(request)
                    # Noted first: what a client has read is in the log, even if this process dies.
                    self.log.write(f"{request['model']} {content['usage']['prompt_tokens']}\n")
                    self.log.flush()
                    send(writer, 200, json.dumps(content).encode())
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def fail(self, writer: asyncio.StreamWriter) -> bool:
        """Fail now and then, in one of several ways."""
        if self.random.random() >= self.fault_rate:
            return False
        fault = self.random.choice(FAULTS)
        if fault in ("drop", "stall"):
            await asyncio.sleep(self.stall_s if fault == "stall" else 0)
            writer.transport.abort()
            raise ConnectionResetError
        if fault == "invalid":
            send(writer, 200, b'{"choices": [')
        else:
            send(writer, int(fault), b"{}", b"retry-after: 0.2\r\n" if fault == "429" else b"")
        return True

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say the conversation's code and the number of the message."""
        messages, model = request["messages"], request["model"]
        text = json.dumps(messages)
        code = (_CODE.findall(text) or ["none"])[0]
        if model == "user":
            turn = text.count("turn ")
            reply = json.dumps({"thought": "", "response": f"user {code} turn {turn}"})
        else:
            turn = sum(message["role"] != "system" for message in messages)
            reply = f"assistant {code} turn {turn}"
        usage = {"prompt_tokens": len(text) // 4, "completion_tokens": 8}
        message = {"role": "assistant", "content": reply}
        return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def send(writer: asyncio.StreamWriter, status: int, body: bytes, header: bytes = b"") -> None:
    """Write an answer."""
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n".encode()
    writer.write(head + header + b"\r\n" + body)


if __name__ == "__main__":
    main()
