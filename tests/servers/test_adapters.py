"""Adapters on a server: named by content, loaded again after a restart, a reason when refused."""

import json
import shutil
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from collabllm.errors import ServerError
from collabllm.evaluation.arms import Arm, ArmPool
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.event_loop import run
from collabllm.servers.client import OpenAIClient
from collabllm.servers.usage import UsageLedger
from collabllm.simulation import OpenAIAssistant, simulate_chats
from collabllm.simulation.session import Session
from tests.training.conftest import save_tiny_model

HI = [{"role": "user", "content": "hi"}]


class VllmLike:
    """Knows the adapters it was told to load, as vLLM does, and answers with their folder."""

    def __init__(self):
        self.loaded, self.asked, self.refuses = {}, [], False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, content = outer.answer(self.path, body)
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, path, body):
        what = path.rsplit("/", 1)[1]
        self.asked.append(what)
        if what == "load_lora_adapter":
            name = body["lora_name"]
            if self.refuses:
                return 400, {"error": {"message": "no such adapter"}}
            if name in self.loaded:
                return 400, {"error": {"message": f"'{name}' has already been loaded."}}
            self.loaded[name] = body["lora_path"]
            return 200, {}
        if what == "unload_lora_adapter":
            del self.loaded[body["lora_name"]]
            return 200, {}
        if body["model"] not in ("base", *self.loaded):
            return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
        text = self.loaded.get(body["model"], "base")
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        return 200, {"choices": [choice], "usage": usage}

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    with VllmLike() as server:
        yield server


@pytest.fixture
def assistant(server):
    return OpenAIAssistant("base", client=OpenAIClient(server.url, "none", max_retries=1))


def make_adapter(folder, content):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(content)
    return str(folder)


def test_adapters_are_told_apart_by_content_and_are_loaded_once(server, assistant, tmp_path):
    one = make_adapter(tmp_path / "final", "one")
    (tmp_path / "x").mkdir()
    other = make_adapter(tmp_path / "x/final", "two")
    answers = []
    for path in (one, other, one):
        assistant.use_adapter(path)
        answers.append(run(assistant.agenerate(HI)).text)

    assert answers == [one, other, one]
    assert len(server.loaded) == 2
    assert "unload_lora_adapter" not in server.asked
    assert assistant.name == one


def test_one_of_the_same_name_gives_way_to_another(server, assistant):
    for path in ("/adapters/a", "/adapters/b"):
        assistant.load_lora("mine", path)

    assert run(assistant.agenerate(HI)).text == "/adapters/b"


def test_a_server_that_was_restarted_gets_its_adapter_again(server, assistant, caplog):
    assistant.load_lora("mine", "/adapters/mine")
    server.loaded.clear()

    assert run(assistant.agenerate(HI)).text == "/adapters/mine"
    assert "has lost the adapter mine" in caplog.text

    server.loaded.clear()
    server.refuses = True
    with pytest.raises(ServerError, match="404"):
        run(assistant.agenerate(HI))


def test_a_run_and_an_arm_take_an_adapter_to_their_server(server, tmp_path):
    adapter = make_adapter(tmp_path / "sft", "one")
    records = simulate_chats(
        assistant_model="base",
        assistant_base_url=server.url,
        lora_path=adapter,
        num_tasks=1,
        max_turns=1,
        output_dir=str(tmp_path / "run"),
    )
    replies = {record.result.messages[-1]["content"] for record in records}

    settings = EvaluationSettings(num_tasks=1)
    arm = Arm.read({"name": "sft", "model": "base", "base_url": server.url, "lora_path": adapter})
    with ExitStack() as stack:
        pool = ArmPool(settings, Session(settings, stack))
        with pool.assistant(arm, adapter) as assistant:
            answer = run(assistant.agenerate(HI)).text

    assert replies == {answer} == {adapter}
    assert len(server.loaded) == 1


def test_a_dead_server_of_several_does_not_keep_an_adapter_from_the_others(server, caplog):
    client = OpenAIClient([server.url, "http://127.0.0.1:9/v1"], "none", max_retries=2)
    assistant = OpenAIAssistant("base", client=client)
    assistant.load_lora("mine", "/adapters/mine")
    dead = OpenAIAssistant("base", client=OpenAIClient("http://127.0.0.1:9/v1", "none"))

    assert server.loaded == {"mine": "/adapters/mine"}
    assert "not loaded everywhere: http://127.0.0.1:9/v1" in caplog.text
    with pytest.raises(ServerError, match="127.0.0.1:9"):
        dead.load_lora("mine", "/adapters/mine")


def test_an_adapter_has_the_price_of_its_model(server):
    ledger = UsageLedger(5.0, {"base": (0.0, 1e6)})
    assistant = OpenAIAssistant("base", client=OpenAIClient(server.url, "none", ledger=ledger))
    for name in ("one", "two"):
        assistant.load_lora(name, f"/adapters/{name}")
        run(assistant.agenerate(HI))

    assert ledger.cost_usd == 2.0


def test_a_chat_template_that_the_server_does_not_know_is_a_warning(server, tmp_path, caplog):
    model = save_tiny_model(tmp_path / "model")
    assistant = OpenAIAssistant(
        "base", client=OpenAIClient(server.url, "none"), tokenizer_path=str(model)
    )
    same, other = make_adapter(tmp_path / "same", "1"), make_adapter(tmp_path / "other", "2")
    shutil.copy(model / "chat_template.jinja", same)
    (tmp_path / "other/chat_template.jinja").write_text("{{ messages }}")
    assistant.use_adapter(same)
    assert "chat template" not in caplog.text
    assistant.use_adapter(other)

    assert f"--chat-template {other}/chat_template.jinja" in caplog.text
    assert assistant.count_tokens("one two") > 0


def test_a_refused_adapter_says_what_vllm_needs(server, assistant):
    server.refuses = True
    with pytest.raises(ServerError, match="enable-lora"):
        assistant.load_lora("mine", "/adapters/mine")
    assert assistant.model == "base"
