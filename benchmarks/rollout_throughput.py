"""Conversations a minute: one at a time, lock-step padded batches, and ours, in one run.

The user is a server on loopback that answers after half a second; the assistant is the bundled
model, greedy, with a fixed reply length, so that all three ways write the same number of tokens.

uv run python benchmarks/rollout_throughput.py --num_conversations 32 64 --baseline_conversations 8
"""

import argparse
import itertools
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any

import torch
from baseline_rollouts import BASELINES, Result, finish, make_user
from rich.console import Console
from rich.table import Table
from user_server import UserServer

from collabllm.data_processing import DEFAULT_SYSTEM_PROMPT
from collabllm.hub import BUNDLED_MODEL
from collabllm.logging_utils import configure_logging
from collabllm.models import find_bundled_gguf
from collabllm.simulation import (
    Assistant,
    LocalAssistant,
    OpenAIAssistant,
    OpenAIClient,
    simulate,
)
from collabllm.simulation.assistant import RayAssistant, VllmAssistant
from collabllm.tasks import Task, demo_tasks


class FixedLength(LocalAssistant):
    """Writes exactly `max_new_tokens`: no token ends a reply."""

    def _start_engine(self, batching: str, sampling: dict[str, Any]) -> Any:
        self.tokenizer.eos_token = "<|endoftext|>"
        self.model.generation_config.eos_token_id = self.tokenizer.eos_token_id
        return super()._start_engine(batching, sampling)


class Forgetful(FixedLength):
    """Encodes every prompt anew: no keys and values are stored from turn to turn."""

    def _start_engine(self, batching: str, sampling: dict[str, Any]) -> Any:
        engine = super()._start_engine("padded", sampling)
        engine._store.add_rows = lambda *args: None
        return engine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_conversations", type=int, nargs="+", default=[16])
    parser.add_argument("--max_turns", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=48)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--dtype", default="auto", help="of ours; the baselines are in float32")
    parser.add_argument("--batching", default="auto", choices=("auto", "continuous", "padded"))
    parser.add_argument(
        "--engine",
        nargs="+",
        default=["local"],
        choices=ENGINES,
        help="of ours, one or several; ray-2 has two workers; vLLM runs with and without seeds",
    )
    parser.add_argument("--vllm_command", default="vllm serve", help="starts vLLM")
    parser.add_argument("--temperature", type=float, default=0.0, help="of ours")
    parser.add_argument(
        "--also_without_prefixes", action="store_true", help="ours (padded), storing no prefixes"
    )
    parser.add_argument("--ours_only", action="store_true", help="without the two baselines")
    parser.add_argument("--baseline_conversations", type=int, help="of the first two ways, once")
    args = parser.parse_args()
    configure_logging()
    ThreadingHTTPServer.request_queue_size = 512  # the default of 5 makes later callers wait 1 s
    server = ThreadingHTTPServer(("127.0.0.1", 0), UserServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = OpenAIClient(f"http://127.0.0.1:{server.server_port}/v1", "none")
    results = []
    if args.baseline_conversations and not args.ours_only:
        tasks = make_tasks(args.baseline_conversations)
        results += [measure(tasks, client, args) for measure in BASELINES]
    for number in args.num_conversations:
        tasks = make_tasks(number)
        if not args.ours_only and not args.baseline_conversations:
            results += [measure(tasks, client, args) for measure in BASELINES]
        for engine in args.engine:
            results += ENGINES[engine](tasks, client, args)
        if args.also_without_prefixes:
            results += measure_ours(tasks, client, args, Forgetful)
    print_results(results)
    server.shutdown()


def make_tasks(number: int) -> list[Task]:
    """Make tasks that no two conversations share."""
    goals = itertools.islice(itertools.cycle(demo_tasks()), number)
    return [
        Task(str(i), f"conversation number {i}: {task.single_turn_prompt}")
        for i, task in enumerate(goals)
    ]


def measure_ours(
    tasks: list[Task], client: OpenAIClient, args: Any, kind: type[FixedLength] = FixedLength
) -> list[Result]:
    """(c) `simulate` with a LocalAssistant."""
    name = "(c) ours" if kind is FixedLength else "(d) ours, storing nothing"
    with kind(BUNDLED_MODEL, **local_options(args)) as assistant:
        assistant.warmup()
        return [run_ours(name, tasks, assistant, client, args, count_encoded(assistant))]


def local_options(args: Any) -> dict[str, Any]:
    """Return how a local model generates."""
    return {
        "max_new_tokens": args.max_new_tokens,
        "do_sample": args.temperature > 0,
        "temperature": args.temperature,
        "batching": args.batching,
        "dtype": args.dtype,
    }


def measure_ray(
    tasks: list[Task], client: OpenAIClient, args: Any, num_workers: int
) -> list[Result]:
    """(c) `simulate` with copies of the local model on a Ray cluster."""
    with RayAssistant(
        BUNDLED_MODEL, num_workers=num_workers, engine=FixedLength, **local_options(args)
    ) as assistant:
        name = f"(c) Ray, workers: {num_workers}"
        return [run_ours(name, tasks, assistant, client, args, lambda: 0)]


def measure_llama_cpp(tasks: list[Task], client: OpenAIClient, args: Any) -> list[Result]:
    """(c) `simulate` with a llama.cpp server of this process."""
    server = serve_llama_cpp(args)
    own = OpenAIClient(f"{server.listening_address}/v1", "none", max_concurrency=512)
    assistant = OpenAIAssistant("smollm2", client=own, **served_options(args))
    return [run_ours("(c) llama.cpp", tasks, assistant, client, args, lambda: 0)]


def measure_vllm(tasks: list[Task], client: OpenAIClient, args: Any) -> list[Result]:
    """(c) `simulate` with a vLLM server, with seeds and without, about tasks it has not seen."""
    with VllmAssistant(
        BUNDLED_MODEL,
        command=args.vllm_command,
        options=["--max-model-len", "2048", "--max-num-seqs", str(args.concurrency)],
        client_options={"max_concurrency": 512},
        **served_options(args),
    ) as seeded:
        unseeded = OpenAIAssistant(
            BUNDLED_MODEL, client=seeded.client, seeds=False, **served_options(args)
        )
        seeded.generate([{"role": "user", "content": "Hello"}])
        others = [Task(task.task_id, f"Also: {task.single_turn_prompt}") for task in tasks]
        return [
            run_ours("(c) vLLM", tasks, seeded, client, args, lambda: 0),
            run_ours("(c) vLLM, seeds off", others, unseeded, client, args, lambda: 0),
        ]


def served_options(args: Any) -> dict[str, Any]:
    """Return how an assistant behind a server writes replies of one length, as ours."""
    return {
        "temperature": args.temperature,
        "max_tokens": args.max_new_tokens,
        "extra_body": {"ignore_eos": True},
    }


def run_ours(
    name: str, tasks: list[Task], assistant: Assistant, client: OpenAIClient, args: Any, count: Any
) -> Result:
    """Simulate, and check that every reply was written."""
    started = time.perf_counter()
    records = list(
        simulate(
            tasks,
            assistant,
            lambda task, seed: make_user(task, client),
            max_turns=args.max_turns,
            concurrency=args.concurrency,
            system_prompt=DEFAULT_SYSTEM_PROMPT,
            progress=False,
        )
    )
    result = finish(name, tasks, args, started, count())
    assert len(records) == len(tasks)
    assert all(r.result.usage["replies"] == args.max_turns for r in records)
    return result


def serve_llama_cpp(args: Any) -> Any:
    """Serve the bundled GGUF file (Q4_1); `--concurrency` conversations share the context."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(find_bundled_gguf())
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel = args.concurrency
    params.n_ctx = args.concurrency * 1024
    params.cpuparams.n_threads = torch.get_num_threads()
    params.n_threads_http = args.concurrency + 8
    params.verbosity = 0
    return xllamacpp.Server(params)


def count_encoded(assistant: LocalAssistant) -> Any:
    """Count prompt tokens that the engine encodes, those found in its cache left out."""
    manager = getattr(assistant._engine, "_manager", None)
    if manager is None:
        engine: Any = assistant._engine
        return lambda: engine.prompt_tokens_encoded
    cache, encoded = manager.batch_processor.cache, [0]
    search = cache.search_prefix_match

    def counted(request_id: str, prompt_ids: list[int]) -> int:
        found: int = search(request_id, prompt_ids)
        encoded[0] += len(prompt_ids) - found
        return found

    cache.search_prefix_match = counted
    return lambda: encoded[0]


def print_results(results: list[Result]) -> None:
    """Print the ways side by side, with their speed against the first."""
    table = Table(title="Simulated conversations on this machine")
    for column in (
        "way",
        "conversations",
        "conv/min",
        "tokens/s",
        "prompt tokens encoded",
        "speed",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    first = results[0]
    for result in results:
        rate = 60 * result.conversations / result.seconds
        table.add_row(
            result.name,
            str(result.conversations),
            f"{rate:.1f}",
            f"{result.tokens / result.seconds:.0f}",
            f"{result.prompt_tokens_encoded:,}" if result.prompt_tokens_encoded else "not known",
            f"{rate / (60 * first.conversations / first.seconds):.1f}x",
        )
    Console().print(table)


ENGINES = {
    "local": measure_ours,
    "llama.cpp": measure_llama_cpp,
    "vllm": measure_vllm,
    "ray-1": partial(measure_ray, num_workers=1),
    "ray-2": partial(measure_ray, num_workers=2),
}

if __name__ == "__main__":
    main()
