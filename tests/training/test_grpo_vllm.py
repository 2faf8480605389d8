"""Online training with TRL's vLLM: who generates, with which weights, and what is refused."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from types import SimpleNamespace

import pytest
from trl.generation import vllm_client, vllm_generation
from trl.trainer import grpo_trainer

from collabllm.event_loop import run
from collabllm.simulation.assistant.engines.trainer_vllm import TrainerVLLMEngine
from collabllm.training import grpo_vllm
from scripts.train_grpo import main

END = 9


class FakeVLLM:
    """In place of `VLLMGeneration`: a word and an end for each prompt, and a diary."""

    mode, temperature = "colocate", 1.0
    diary: list

    def __init__(self, **settings):
        self.settings = settings
        self.end = settings["processing_class"].eos_token_id
        type(self).diary = []

    def sync_weights(self):
        self.diary.append("sync")

    def generate(self, prompts, images, num_generations, profiler=None):
        self.diary.append(len(prompts))
        return prompts, [[7, self.end] for _ in prompts], [[[0.0], [0.0]] for _ in prompts], None


def test_each_step_starts_by_giving_vllm_its_weights_and_futures_are_vllms(
    grpo_flags, monkeypatch, tmp_path
):
    monkeypatch.setattr(grpo_vllm, "is_vllm_available", lambda: True)
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", FakeVLLM)

    main(grpo_flags(use_vllm="true", eval_ratio=0.3, max_turns=1, sample_steps=0))

    # How many share a batch, time decides; the types tell a "sync" from the size of a batch.
    asked = [sum(batches) for kind, batches in groupby(FakeVLLM.diary, type) if kind is int]
    # Held-out conversations, then twice four replies and their futures, then held-out ones again.
    assert asked == [2 + 4 + 4, 4 + 4, 2]
    assert (FakeVLLM.diary[0], FakeVLLM.diary.count("sync")) == ("sync", 3)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["after"]["num_conversations"] == 2
    written = [e["generated_tokens"] for e in metrics["log_history"] if "generated_tokens" in e]
    assert written == [16, 32]


def test_vllm_gets_no_more_context_than_the_model_has(grpo_flags, start_grpo, monkeypatch):
    monkeypatch.setattr(grpo_vllm, "is_vllm_available", lambda: True)

    run, _ = start_grpo(grpo_flags(use_vllm="true", max_length=10**6))

    assert run.config.vllm_max_model_length == run.settings.max_length < 10**6


def ask(engine, *prompts, **given):
    async def all_at_once():
        return await asyncio.gather(*(engine.generate(ids, 3, **given) for ids in prompts))

    return run(all_at_once())


def test_callers_share_a_batch_and_replies_end_at_their_end_token():
    asked = []

    def generate(prompts, images, num_generations):
        asked.append((prompts, images, num_generations))
        return prompts, [[1, END, END], [1, 2, 3, 4]], None, None

    generation = SimpleNamespace(mode="colocate", temperature=0.7, generate=generate)
    synced = []
    engine = TrainerVLLMEngine(generation, [END], lambda: synced.append(len(asked)))

    replies = ask(engine, [5], [6, 7])
    engine.forget()

    assert replies == [([1, END], True), ([1, 2, 3], False)]
    assert asked == [([[5], [6, 7]], None, 1)]
    assert synced == [1]
    with pytest.raises(ValueError, match=r"vLLM samples at 0\.7, got 0\."):
        ask(engine, [5], temperature=0)
    engine.close()


@pytest.fixture
def server():
    """A server that completes every prompt with its length and the end token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply({"data": [{"id": "policy"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append(body)
            choices = [
                {"prompt_token_ids": ids, "token_ids": [len(ids), END], "logprobs": None}
                for ids in body["prompt"]
            ]
            self.reply({"choices": choices})

        def reply(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    bodies = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{httpd.server_port}", bodies=bodies)
    httpd.shutdown()
    httpd.server_close()


def test_each_process_asks_a_server_for_itself_by_exact_ids(server, monkeypatch):
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
    generation = SimpleNamespace(  # as on a process that is not the main one: without a client
        mode="server",
        server_base_url=server.url,
        server_host="0.0.0.0",
        server_port=1,
        server_timeout=5,
        temperature=0.7,
        repetition_penalty=1.0,
        top_p=0.9,
        top_k=3,
        min_p=None,
        max_completion_length=8,
        structured_outputs_regex=None,
        generation_kwargs={},
    )
    engine = TrainerVLLMEngine(generation, [END], lambda: None)

    replies = ask(engine, [5], [6, 7])

    assert replies == [([1, END], True), ([2, END], True)]
    (body,) = server.bodies
    assert body["prompt"] == [[5], [6, 7]]
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 3, "max_tokens": 3, "n": 1}  # the room
    assert {name: body[name] for name in sampling} == sampling
    engine.close()


def test_a_server_that_is_gone_is_asked_once_and_not_in_halves():
    asked = []

    def generate(**given):
        asked.append(given)
        raise ConnectionRefusedError("nobody there")

    client = SimpleNamespace(generate=generate)
    names = "repetition_penalty top_p top_k min_p structured_outputs_regex generation_kwargs"
    generation = SimpleNamespace(
        **dict.fromkeys(names.split()),
        mode="server",
        vllm_client=client,
        temperature=1.0,
        max_completion_length=8,
    )
    engine = TrainerVLLMEngine(generation, [END], lambda: None)

    async def all_at_once():
        calls = (engine.generate([number], 3) for number in range(8))
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = run(all_at_once())

    assert [str(error) for error in errors] == [
        "The vLLM server failed: ConnectionRefusedError: nobody there"
    ] * 8
    assert len(asked) == 1
    engine.close()


def test_trls_vllm_has_what_is_used_of_it():
    assert {"generate", "sync_weights"} <= set(dir(vllm_generation.VLLMGeneration))
    assert "_last_loaded_step" in grpo_trainer.GRPOTrainer._generate.__code__.co_names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load_in_4bit": "true"}, "rounds the adapter away"),
        ({"vllm_tensor_parallel_size": 2}, "each talks by itself"),
        ({"credit": "conversation"}, "--vllm_importance_sampling_correction false"),
    ],
)
def test_what_vllm_cannot_do_is_said_before_weights_load(grpo_flags, monkeypatch, changes, message):
    with pytest.raises(ValueError, match="vLLM is not installed here"):
        main(grpo_flags(use_vllm="true"))
    monkeypatch.setattr(grpo_vllm, "is_vllm_available", lambda: True)

    with pytest.raises(ValueError, match=message):
        main(grpo_flags(use_vllm="true", **changes))
