"""VllmAssistant: starts its server, says why it cannot, and leaves nothing behind.

The command is a stand-in that speaks vLLM's HTTP; vLLM itself wants an environment of its own.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from collabllm.errors import ServerError
from collabllm.evaluation import evaluate
from collabllm.evaluation.names import transcript_file
from collabllm.event_loop import run
from collabllm.servers.adapters import unique_name
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.assistant.settings import AssistantSettings
from collabllm.simulation.assistant.vllm import VllmAssistant
from collabllm.simulation.transcripts import read_transcripts
from tests.training.conftest import save_tiny_model

STAND_IN = """
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
words = dict(zip(sys.argv[1::1], sys.argv[2::1]))
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(os.environ["PIDS"], "a") as file:
    file.write(f"{os.getpid()} {worker.pid}\\n")
if "--broken" in sys.argv:
    sys.exit("ValueError: no such model: " + words["--model"])
if "--long" in sys.argv:
    print("ValueError: memory", *["  in some frame"] * 20, sep="\\n"); sys.exit("See above.")
if "--slow" in sys.argv:
    print("loading", flush=True); time.sleep(600)
class Handler(BaseHTTPRequestHandler):
    loaded = {}
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/load_lora_adapter"):
            assert os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] and "--enable-lora" in sys.argv
            self.loaded[body["lora_name"]] = body["lora_path"]
            return self.answer({})
        text = f"{body['model']} {self.loaded.get(body['model'], '')}"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        self.answer({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    def answer(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *args):
        pass
ThreadingHTTPServer(("127.0.0.1", int(words["--port"])), Handler).serve_forever()
"""
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def command(tmp_path, monkeypatch):
    script = tmp_path / "vllm.py"
    script.write_text(STAND_IN)
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return [sys.executable, str(script)]


def all_gone(tmp_path):
    deadline = time.monotonic() + 10
    pids = (tmp_path / "pids").read_text().split()
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(is_running(pid) for pid in pids)


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it may end while it is read
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_it_serves_the_model_and_adapters_and_leaves_nothing_running(tmp_path, command):
    with VllmAssistant(
        "some/model",
        str(tmp_path / "mine"),
        command=command,
        client_options={"ledger": UsageLedger(max_cost_usd=1.0)},  # it costs nothing
    ) as assistant:
        log = assistant.server.log
        first = run(assistant.agenerate(HI)).text
        assistant.load_lora("other", "/adapters/other")
        second = run(assistant.agenerate(HI)).text

    assert first.startswith("mine-")
    assert first.endswith(f" {tmp_path / 'mine'}")
    assert second == "other /adapters/other"
    assert all_gone(tmp_path)
    assert not log.exists()


def test_it_serves_the_bundled_model_under_its_name(tmp_path, command, monkeypatch):
    models = SimpleNamespace(resolve_model_path=lambda path: f"/converted/{path}")
    monkeypatch.setitem(sys.modules, "collabllm.models", models)  # without torch
    with pytest.raises(ServerError, match="no such model: /converted/smollm2-135m-instruct"):
        VllmAssistant("smollm2-135m-instruct", command=command, options=["--broken"])


def test_a_server_that_cannot_start_says_why(tmp_path, command):
    with pytest.raises(ServerError, match="status 1. Its log ends:\nValueError: no such model"):
        VllmAssistant("some/model", command=command, options=["--broken"])
    assert all_gone(tmp_path)

    with pytest.raises(ServerError, match="did not answer within 4 s. Its log ends:\nloading"):
        VllmAssistant("some/model", command=command, options=["--slow"], start_timeout_s=4)
    assert all_gone(tmp_path)

    with pytest.raises(ServerError, match="first error in its log:\\nValueError: memory\\nIts log"):
        VllmAssistant("some/model", command=command, options=["--long"])

    with pytest.raises(ServerError, match="not found"):
        VllmAssistant("some/model", command="no-such-program serve")


def test_a_server_that_ends_in_the_middle_is_no_server_to_try_again(tmp_path, command):
    with VllmAssistant("org/model", command=command) as assistant:
        assert assistant.generate(HI).strip() == "org/model"
        os.kill(int((tmp_path / "pids").read_text().split()[0]), signal.SIGKILL)

        with pytest.raises(ServerError, match="ended with status 137"):
            assistant.generate(HI)


def test_a_killed_run_takes_its_server_along(tmp_path, command):
    code = (
        "import sys, time; from collabllm.simulation.assistant.vllm import VllmAssistant;"
        "a = VllmAssistant('m', command=sys.argv[1:]); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout.readline() == "up\n"
        os.kill(program.pid, signal.SIGKILL)

    assert all_gone(tmp_path)


def test_the_commands_own_words_win(command):
    words = [*command, "--max-lora-rank", "128", "--broken"]
    with pytest.raises(ServerError, match="--max-lora-rank 128 --broken") as error:
        VllmAssistant("some/model", command=words)
    assert "rank 64" not in str(error.value)


def test_an_evaluation_serves_all_arms_from_one_server(tmp_path, command):
    adapter = tmp_path / "sft"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    model = str(save_tiny_model(tmp_path / "tiny"))  # its tokenizer counts the tokens
    results = evaluate(
        assistant="vllm",
        vllm_command=shlex.join(command),
        hf_model_path=model,
        arm=["name=base", f"name=sft,lora_path={adapter}"],
        num_told=["0"],
        num_tasks=8,
        max_turns=1,
        output_dir=str(tmp_path / "e"),
    )
    replies = {}
    for arm in ("base", "sft"):
        talks = read_transcripts(transcript_file(tmp_path / "e", arm, "sharded"))
        replies[arm] = {talk["messages"][-1]["content"] for talk in talks}

    assert results.complete
    assert replies == {"base": {f"{model} "}, "sft": {f"{unique_name(str(adapter))} {adapter}"}}
    assert len((tmp_path / "pids").read_text().splitlines()) == 1
    assert all_gone(tmp_path)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"load_in_4bit": True, "assistant": "vllm"}, "--quantization bitsandbytes"),
        ({"assistant_base_url": "http://a", "assistant": "vllm"}, "starts a server of its own"),
        ({"ray_workers": 2, "assistant": "vllm"}, "--ray_workers needs --ray"),
        ({"vllm_command": "uvx vllm serve"}, "--vllm_command needs --assistant vllm"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings, why):
    with pytest.raises(ValueError, match=why):
        AssistantSettings(**settings)
