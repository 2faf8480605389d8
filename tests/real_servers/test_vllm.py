"""A real vLLM, all the way: adapters of our own training, every stage on one server, a restart.

VLLM_COMMAND starts it, from an environment of its own (docs/simulation.md, "vLLM on CPUs"):

    VLLM_COMMAND="vllm-env/bin/python -m vllm.entrypoints.openai.api_server" \
        uv run pytest tests/real_servers
"""

import json
import os
import shlex
import signal
import threading
import time
from urllib.parse import urlsplit

import pytest

from collabllm.event_loop import run
from collabllm.hub import BUNDLED_MODEL
from collabllm.models import resolve_model_path
from collabllm.servers.client import OpenAIClient
from collabllm.servers.process import ServerProcess
from collabllm.simulation import LocalAssistant, OpenAIAssistant, OpenAIUserModel
from collabllm.simulation.assistant import VllmAssistant
from scripts.build_dataset import main as build_dataset
from scripts.evaluate import main as evaluate
from scripts.simulate_chats import main as simulate_chats
from scripts.train_sft import main as train_sft

COMMAND = os.environ.get("VLLM_COMMAND", "")
pytestmark = [
    pytest.mark.skipif(not COMMAND, reason="VLLM_COMMAND does not say how to start vLLM"),
    pytest.mark.timeout(1800),
]
OPTIONS = ["--dtype", "float32", "--max-model-len", "2048", "--gpu-memory-utilization", "0.12"]
QUESTIONS = ("What is the capital of France?", "Name three colours.", "Write a line about rain.")


def user(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    words = "--config configs/demo.yaml --max_steps 8 --max_eval_pairs 2 --num_sample_replies 0"
    train_sft([*words.split(), "--load_in_4bit", "false", "--output_dir", str(folder)])
    return str(folder)


@pytest.fixture(scope="module")
def vllm():
    with VllmAssistant(
        BUNDLED_MODEL, command=COMMAND, options=OPTIONS, temperature=0, max_tokens=16
    ) as assistant:
        yield assistant


@pytest.fixture
def flags(vllm, adapter):
    """Flags of any stage: its assistant is the adapter on that server."""
    words = f"--assistant_base_url {vllm.server.url}/v1 --assistant_model {BUNDLED_MODEL} "
    words += "--max_turns 2 --max_new_tokens 96 --temperature 0.7 --lora_path"
    return [*words.split(), adapter]


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("with_adapter", [False, True])
def test_greedy_replies_are_those_of_transformers(vllm, adapter, with_adapter):
    if with_adapter:
        vllm.use_adapter(adapter)
    served = [vllm.generate(user(text)) for text in QUESTIONS]
    with LocalAssistant(
        BUNDLED_MODEL,
        adapter if with_adapter else None,
        max_new_tokens=16,
        do_sample=False,
        dtype="float32",
    ) as local:
        assert served == [local.generate(user(text)) for text in QUESTIONS]


def test_a_seed_gives_one_reply(vllm):
    assistant = OpenAIAssistant(BUNDLED_MODEL, client=vllm.client, temperature=1, max_tokens=12)
    texts = [run(assistant.agenerate(user("Say something."), seed=s)).text for s in (1, 1, 2)]

    assert texts[0] == texts[1] != texts[2]


def test_a_reply_is_shown_as_it_is_written(vllm):
    shown = []
    reply = run(vllm.astream(user("Tell a long story."), shown.append))

    assert len(shown) > 5
    assert shown[-1].text == reply.text
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 16)


def test_it_plays_the_user_in_the_asked_form(vllm):
    client = OpenAIClient(f"{vllm.server.url}/v1", "none")
    person = OpenAIUserModel("advice", "a birthday card", BUNDLED_MODEL, client=client)

    assert run(person.agenerate([], seed=3)).response.strip()
    assert client.refused == {}


def test_it_simulates_builds_and_evaluates_with_the_adapter(vllm, adapter, flags, tmp_path):
    simulate_chats([*flags, "--num_tasks", "4", "--output_dir", str(tmp_path / "s")])
    small = "--num_tasks 2 --num_candidates 2 --num_samples 1 --window 1 --output_dir"
    build_dataset([*flags, *small.split(), str(tmp_path / "b")])
    where = {"model": BUNDLED_MODEL, "base_url": f"{vllm.server.url}/v1"}
    arms = [{"name": "base", **where}, {"name": "sft", **where, "lora_path": adapter}]
    words = [word for arm in arms for word in ("--arm", json.dumps(arm))]
    words += "--num_tasks 4 --max_turns 2 --max_new_tokens 64".split()
    words += ["--held_out_of", adapter]
    words += ["--test_log", str(tmp_path / "log.jsonl"), "--output_dir", str(tmp_path / "e")]
    evaluate(words)

    talks = lines(tmp_path / "s/transcripts.jsonl")
    assert len(talks) == 4
    assert not any(talk["failed"] for talk in talks)
    assert all(row["completion"] for row in lines(tmp_path / "b/train.jsonl"))
    assert {line["arm"] for line in lines(tmp_path / "e/scores.jsonl")} == {"base", "sft"}
    assert (tmp_path / "e/report.html").is_file()


def test_a_run_outlasts_a_restart_of_the_server(vllm, flags, tmp_path):
    """SIGKILL in the middle, a new server at the same address; the adapter is loaded again."""
    killed = threading.Event()
    started = []

    def restart():
        while not (tmp_path / "s/transcripts.jsonl").is_file() or not lines(
            tmp_path / "s/transcripts.jsonl"
        ):
            time.sleep(0.1)
        os.killpg(vllm.server._process.pid, signal.SIGKILL)
        killed.set()
        port = str(urlsplit(vllm.server.url).port)
        words = [*shlex.split(COMMAND), "--model", resolve_model_path(BUNDLED_MODEL)]
        words += ["--served-model-name", BUNDLED_MODEL, "--host", "127.0.0.1", "--port", port]
        words += ["--enable-lora", "--max-lora-rank", "64", *OPTIONS]
        environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        started.append(ServerProcess(words, vllm.server.url, 900, environment))

    thread = threading.Thread(target=restart, daemon=True)
    thread.start()
    try:
        many = "--num_tasks 16 --concurrency 4 --max_retries 40 --output_dir"
        simulate_chats([*flags, *many.split(), str(tmp_path / "s")])
        thread.join(900)
        loaded = started[0].log.read_text().count("Loaded new LoRA adapter")
    finally:
        for server in started:
            server.stop()

    talks = lines(tmp_path / "s/transcripts.jsonl")
    assert killed.is_set()
    assert len({talk["task_id"] for talk in talks}) == len(talks) == 16
    assert not any(talk["failed"] for talk in talks)
    assert loaded == 1
