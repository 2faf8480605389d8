"""OpenAIClient: retries, pauses, refusals, preflight; keys stay out of every text."""

import asyncio
import email.utils
import json
import logging
import random
import subprocess
import sys
import threading
import time

import httpx2
import pytest

from collabllm.errors import ContextFullError, CostLimitError, ServerError
from collabllm.event_loop import run
from collabllm.servers.client import OpenAIClient, shared_client
from collabllm.servers.completion import read_completion
from collabllm.servers.connection import describe_failure
from collabllm.servers.process import free_port
from collabllm.servers.usage import UsageLedger
from tests.fake_server import FakeServer

KEY = "sk-verysecret"
HI = [{"role": "user", "content": "hi"}]


def ask(client, model="m", **settings):
    return run(client.complete(HI, model, role="user", **settings))


def test_an_answer_has_text_usage_and_reason():
    with FakeServer(lambda body: "hello") as server:
        client = OpenAIClient(server.url, KEY)

        answer = ask(client, temperature=0.3, seed=5)

    assert (answer.text, answer.finish_reason) == ("hello", "stop")
    assert server.requests[0]["seed"] == 5
    assert client.ledger.by_role()["user"].completion_tokens == answer.completion_tokens == 2


@pytest.mark.parametrize("fault", ["429_retry_after", "429", "500", "drop", "invalid_body"])
def test_a_passing_fault_is_retried(fault):
    with FakeServer(lambda body: "ok", fault_rate=0.5, faults=(fault,), seed=3) as server:
        client = OpenAIClient(server.url, KEY, max_retries=8)

        answers = [ask(client).text for _ in range(4)]

    assert answers == ["ok"] * 4
    assert server.injected[fault] > 0
    unread = server.injected[fault] if fault in ("drop", "invalid_body") else 0
    assert client.ledger.num_unanswered == unread


def test_only_what_has_left_is_sent_without_an_answer():
    async def cancel_all(client):
        calls = [client.complete(HI, "m", role="user", max_tokens=90) for _ in range(9)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        while len(server.requests) < 2:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with FakeServer(lambda body: "ok", delay_s=1.0) as server:
        client = OpenAIClient(server.url, KEY, tokens_per_minute=200)
        run(cancel_all(client))

    assert len(server.requests) == 2, "the others wait for room"
    assert client.ledger.num_unanswered == 2
    assert client.ledger.by_role()["user"].requests == 0


def test_retry_after_is_honoured():
    calls = []

    def reject(body):
        calls.append(time.monotonic())
        return (429, {"error": {"message": "slow down"}}) if len(calls) == 1 else None

    with FakeServer(lambda body: "ok") as server:
        server.reject = reject
        original = server.send
        server.send = lambda h, status, data, headers=None: original(
            h, status, data, {"retry-after": "0.7"} if status == 429 else headers
        )
        ask(OpenAIClient(server.url, KEY))

    assert calls[1] - calls[0] >= 0.7


def test_a_lasting_failure_is_raised_after_bounded_tries_without_the_key(caplog):
    with FakeServer(lambda body: "ok", fault_rate=1, faults=("500",)) as server:
        client = OpenAIClient(server.url, KEY, max_retries=2)
        with (
            caplog.at_level(logging.DEBUG, logger="collabllm"),
            pytest.raises(ServerError, match=r"/v1 failed 3 times; last: status 500") as error,
        ):
            ask(client)

    assert len(server.requests) == 3
    assert KEY not in str(error.value) + repr(error.value.__cause__) + caplog.text + repr(client)


def test_a_refused_request_is_not_retried_and_its_body_is_not_shown():
    with FakeServer(lambda body: "ok") as server:
        server.reject = lambda body: (401, {"error": {"message": f"bad key {KEY}"}})

        with pytest.raises(ServerError, match=r"refused the request \(401\)") as error:
            ask(OpenAIClient(server.url, KEY))

    assert len(server.requests) == 1
    assert KEY not in str(error.value)


def test_a_full_context_is_told_from_other_refusals():
    with FakeServer(lambda body: "ok") as server:
        server.reject = lambda body: (400, {"error": {"code": "context_length_exceeded"}})

        with pytest.raises(ContextFullError):
            ask(OpenAIClient(server.url, KEY))


def test_what_a_model_refuses_is_learned_once():
    def reject(body):
        for name in ("max_tokens", "temperature"):
            if name in body and body["model"] == "picky":
                return 400, {"error": {"message": f"Unsupported parameter: '{name}'"}}
        return None

    with FakeServer(lambda body: "ok") as server:
        server.reject = reject
        client = OpenAIClient(server.url, KEY)
        ask(client, "picky", max_tokens=9, temperature=0.5)
        before = len(server.requests)
        ask(client, "picky", max_tokens=9, temperature=0.5)
        ask(client, "plain", max_tokens=9)

    assert before == 3
    assert len(server.requests) == 5
    assert server.requests[-2]["max_completion_tokens"] == 9
    assert "temperature" not in server.requests[-2]
    assert server.requests[-1]["max_tokens"] == 9


@pytest.mark.parametrize(
    "message",
    [
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`.",
        "Bad request",
    ],
)
def test_a_form_that_a_server_refuses_in_any_words_is_left_out(message):
    def reject(body):
        error = {"message": message, "type": "invalid_request_error", "param": None}
        return (400, {"error": error}) if "response_format" in body else None

    with FakeServer(lambda body: "ok") as server:
        server.reject = reject
        client = OpenAIClient(server.url, KEY)
        answers = [ask(client, response_format={"type": "json_schema"}).text for _ in range(2)]

    assert answers == ["ok", "ok"]
    assert len(server.requests) == 3
    assert client.refused == {"m": {"response_format"}}


def test_a_request_refused_with_and_without_a_form_says_nothing_of_the_form():
    with FakeServer(lambda body: "ok") as server:
        server.reject = lambda body: (400, {"error": {"message": "Bad request"}})
        client = OpenAIClient(server.url, KEY)

        with pytest.raises(ServerError, match=r"refused the request \(400\)"):
            ask(client, response_format={"type": "json_schema"})

    assert len(server.requests) == 2
    assert client.refused == {}


def test_no_more_requests_at_once_than_allowed():
    active, most = [0], [0]

    def answer(body):
        active[0] += 1
        most[0] = max(most[0], active[0])
        time.sleep(0.05)
        active[0] -= 1
        return "ok"

    async def many(client):
        await asyncio.gather(*(client.complete(HI, "m", role="user") for _ in range(12)))

    with FakeServer(answer) as server:
        run(many(OpenAIClient(server.url, KEY, max_concurrency=3)))

    assert most[0] <= 3
    assert len(server.requests) == 12


def test_the_cost_limit_stops_the_next_request():
    ledger = UsageLedger(max_cost_usd=0.001, prices={"m": (1000.0, 1000.0)})
    with FakeServer(lambda body: "ok") as server:
        client = OpenAIClient(server.url, KEY, ledger=ledger)
        ask(client)

        with pytest.raises(CostLimitError, match=r"\$0.001 is reached"):
            ask(client)

    assert len(server.requests) == 1


@pytest.mark.parametrize("shown", [None, lambda completion: None])
def test_tokens_that_a_server_does_not_tell_are_estimated_with_one_warning(shown, caplog):
    """100 bytes are 25 tokens, $0.025; "hi" is none, and its message takes four."""
    ledger = UsageLedger(max_cost_usd=0.05, prices={"m": (0.0, 1000.0)})
    with FakeServer(lambda body: "word " * 20) as server:
        server.tells_usage = False
        client = OpenAIClient(server.url, KEY, ledger=ledger)
        answers = [ask(client, on_completion=shown) for _ in range(2)]

        with pytest.raises(CostLimitError):
            ask(client)

    assert [(a.prompt_tokens, a.completion_tokens) for a in answers] == [(4, 25)] * 2
    assert caplog.text.count("does not tell how many tokens it used") == 1


def test_what_a_model_refuses_is_learned_by_all_that_are_under_way():
    """Sixty-four callers send the refused setting before the first refusal comes back."""

    def reject(body):
        if "max_tokens" in body:
            error = {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens"}
            return 400, {"error": {**error, "code": "unsupported_parameter"}}
        return None

    async def many(client):
        calls = (client.complete(HI, "m", role="user", max_tokens=9) for _ in range(64))
        return await asyncio.gather(*calls)

    with FakeServer(lambda body: "ok", delay_s=0.2) as server:
        server.reject = reject
        answers = run(many(OpenAIClient(server.url, KEY, max_retries=0)))

    assert [answer.text for answer in answers] == ["ok"] * 64
    assert len(server.requests) == 128


@pytest.mark.parametrize(
    "error",
    [
        {"message": "max_tokens is too large: 99999.", "param": "max_tokens", "code": "invalid"},
        {"message": "messages[0] is not supported", "param": "messages[0].content"},
        {"message": "temperature was 0.5. The role 'tool' is not supported."},
        {"message": "Unsupported parameter: 'top_p'", "param": "top_p"},
    ],
)
def test_an_unrelated_refusal_drops_no_setting(error):
    with FakeServer(lambda body: "ok") as server:
        server.reject = lambda body: (400, {"error": error})
        client = OpenAIClient(server.url, KEY)

        with pytest.raises(ServerError, match=r"\(400"):
            ask(client, max_tokens=99999, temperature=0.5)

    assert len(server.requests) == 1
    assert client.refused == {}


def test_a_refusal_in_the_words_of_pydantic_is_understood():
    def reject(body):
        if "seed" not in body:
            return None
        detail = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}
        return 422, {"detail": [detail | {"msg": "Extra inputs are not permitted"}]}

    with FakeServer(lambda body: "ok") as server:
        server.reject = reject

        assert ask(OpenAIClient(server.url, KEY), seed=3).text == "ok"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retry-after-ms", lambda: "700"),
        ("retry-after", lambda: "0.7"),
        ("retry-after", lambda: email.utils.formatdate(time.time() + 2, usegmt=True)),
    ],
)
def test_one_answer_that_asks_for_a_pause_pauses_all(name, value):
    """Twelve callers, one slot: the eleven that did not get the 429 wait as long."""
    times = []

    def reject(body):
        times.append(time.monotonic())
        return (429, {"error": {"message": "slow down"}}) if len(times) == 1 else None

    async def many(client):
        await asyncio.gather(*(client.complete(HI, "m", role="user") for _ in range(12)))

    with FakeServer(lambda body: "ok") as server:
        server.reject = reject
        original = server.send
        server.send = lambda h, status, data, headers=None: original(
            h, status, data, {name: value()} if status == 429 else headers
        )
        run(many(OpenAIClient(server.url, KEY, max_concurrency=1)))

    assert len(times) == 13
    assert times[1] - times[0] >= 0.69


def test_callers_come_back_from_a_pause_one_by_one(monkeypatch):
    asked, ends = [], []

    def reject(body):
        asked.append(body)
        return (429, {"error": {}}) if len(asked) <= 20 else None

    async def sleep(seconds):
        ends.append(time.monotonic() + seconds)
        await real_sleep(seconds)

    real_sleep = asyncio.sleep
    monkeypatch.setattr("collabllm.servers.limits.asyncio.sleep", sleep)

    async def many(client):
        await asyncio.gather(*(client.complete(HI, "m", role="user") for _ in range(20)))

    with FakeServer(lambda body: "ok") as server:
        server.reject = reject
        original = server.send
        server.send = lambda h, status, data, headers=None: original(
            h, status, data, {"retry-after": "1"} if status == 429 else headers
        )
        run(many(OpenAIClient(server.url, KEY)))

    assert len(asked) == 40
    assert len(ends) >= 20
    assert max(ends) - min(ends) > 0.05


@pytest.mark.parametrize("headers", [{}, {"retry-after": "0"}])
def test_a_server_that_comes_back_after_a_while_is_waited_for(monkeypatch, headers):
    """The pauses are shortened by a hundred; together they would have been minutes."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)
        await real_sleep(seconds / 100)

    real_sleep = asyncio.sleep
    monkeypatch.setattr("collabllm.servers.client.asyncio.sleep", sleep)
    with FakeServer(lambda body: "ok") as server:
        client = OpenAIClient(server.url, KEY)
        server.reject = lambda body: (429, {"error": {}}, headers) if sum(waited) < 130 else None

        assert ask(client).text == "ok"
    with pytest.raises(ServerError, match=r"failed 15 times; last: ConnectError"):
        ask(OpenAIClient("http://127.0.0.1:9/v1", KEY))


def test_callers_under_way_outlast_a_server_that_is_gone_for_a_while():
    """Forty callers; the port is closed for two seconds, sockets under way included."""
    port = free_port()
    before = FakeServer(lambda body: "before", faults=("drop",), port=port)

    async def many(client):
        return await asyncio.gather(*(talk(client) for _ in range(40)))

    async def talk(client):
        return [(await client.complete(HI, "m", role="user")).text for _ in range(3)]

    def restart():
        before.fault_rate = 1.0  # what is under way is dropped
        before.__exit__()
        time.sleep(2)
        after.append(FakeServer(lambda body: "after", port=port).__enter__())

    after = []
    before.delay_s = 0.5
    with before:
        client = OpenAIClient(before.url, KEY)
        timer = threading.Timer(0.6, restart)
        timer.start()
        texts = run(many(client))
        timer.join()
    after[0].__exit__()

    assert [len(talk) for talk in texts] == [3] * 40
    assert {talk[-1] for talk in texts} == {"after"}
    usage = client.ledger.by_role()["user"].requests
    assert usage == 120 == sum(s.delivered["m", "requests"] for s in (before, after[0]))


def test_the_time_limit_holds_for_an_answer_that_trickles():
    with FakeServer(lambda body: "ok", delay_s=1.0) as server:
        client = OpenAIClient(server.url, KEY, max_retries=0, timeout_s=0.3)

        with pytest.raises(ServerError, match="no answer within 0.3 s"):
            ask(client)


def test_an_empty_account_is_not_retried():
    with FakeServer(lambda body: "ok") as server:
        server.reject = lambda body: (429, {"error": {"code": "insufficient_quota"}})

        with pytest.raises(ServerError, match=r"\(429, insufficient_quota\)"):
            ask(OpenAIClient(server.url, KEY))

    assert len(server.requests) == 1


def test_blanks_around_a_key_are_cut_and_one_that_cannot_be_sent_is_not_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    with FakeServer(lambda body: "ok") as server:
        ask(OpenAIClient(server.url))
        for key in (f"{KEY}\nx", f"{KEY}é"):
            with pytest.raises(ValueError, match="set OPENAI_API_KEY anew") as error:
                OpenAIClient(server.url, key)
            assert KEY not in str(error.value)

    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    illegal = httpx2.LocalProtocolError(f"Illegal header value b'Bearer {KEY}'")
    assert describe_failure(illegal, 1.0) == "LocalProtocolError"


def test_preflight_names_address_and_cause(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FakeServer(lambda body: "OK") as server:
        run(OpenAIClient(server.url).preflight("m", role="assistant"))
        assert server.requests[0]["max_tokens"] == 16
        server.reject = lambda body: (401, {"error": {"code": "invalid_api_key"}})
        with pytest.raises(ServerError, match=r"401, invalid_api_key.*OPENAI_API_KEY is not set"):
            run(OpenAIClient(server.url).preflight("m", role="assistant"))
        server.reject = lambda body: (404, {"error": {"code": "model_not_found"}})
        with pytest.raises(ServerError, match=r"404, model_not_found.*the model: mm"):
            run(OpenAIClient(server.url).preflight("mm", role="assistant"))
    with pytest.raises(ServerError, match=r"http://127.0.0.1:9/v1 failed 2 times.*connection"):
        run(
            OpenAIClient("http://name:word@127.0.0.1:9/v1", max_retries=1).preflight(
                "m", role="user"
            )
        )


def test_a_capped_run_does_not_start_without_prices():
    ledger = UsageLedger(max_cost_usd=1.0)
    with FakeServer(lambda body: "OK") as server:
        client = OpenAIClient(server.url, KEY, ledger=ledger)

        with pytest.raises(ValueError, match=r'price of my-model.*--prices \'\{"my-model"'):
            run(client.preflight("my-model", role="assistant"))
        with pytest.raises(ValueError, match="price of my-model"):
            ask(client, "my-model")

    assert server.requests == []


def test_thoughts_are_told_from_the_answer():
    texts = iter(
        ["<think>they want\n2+2</think>\n\n4", "they want 2+2</think>4", "<think>they wa", "4 < 5"]
    )
    with FakeServer(lambda body: next(texts)) as server:
        client = OpenAIClient(server.url, KEY)
        answers = [ask(client) for _ in range(4)]

    assert [(answer.reasoning, answer.text) for answer in answers] == [
        ("they want\n2+2", "4"),
        ("they want 2+2", "4"),
        ("they wa", ""),
        ("", "4 < 5"),
    ]


def test_a_reason_is_found_where_the_server_gives_none_or_another_word():
    def read(reason, tokens, **message):
        answer = {
            "choices": [{"message": {"content": "hi", **message}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 1, "completion_tokens": tokens},
        }
        return read_completion(json.dumps(answer), {"max_tokens": 9})

    assert read("max_tokens", 9).finish_reason == "length"
    assert read("eos_token", 3).finish_reason == "stop"
    assert read("content_filter", 3).finish_reason == "content_filter"
    assert read(None, 9).finish_reason == "length"
    assert read(None, 8).finish_reason == "stop"
    assert read("stop", 3, reasoning_content="hm").reasoning == "hm"


def test_a_key_that_is_set_later_is_used(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FakeServer(lambda body: "hi") as server:
        for key in (None, "later"):
            if key:
                monkeypatch.setenv("OPENAI_API_KEY", key)
            client = shared_client(server.url, None)
            run(client.complete([{"role": "user", "content": "x"}], "m", role="user"))
        assert shared_client(server.url, None) is client

    sent = [
        headers.get("authorization") or headers.get("Authorization") for headers in server.headers
    ]
    assert sent == ["Bearer no-key", "Bearer later"]


def test_a_forked_child_gets_an_answer():
    code = (
        "import os\n"
        "from collabllm.event_loop import run, run_blocking\n"
        "async def answer(): return await run_blocking(lambda: 7)\n"
        "assert run(answer()) == 7\n"
        "child = os.fork()\n"
        "if not child: os._exit(run(answer()))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.stdout == "7\n", done.stderr


def test_a_free_port_is_not_that_of_another_run_with_the_same_seed(monkeypatch):
    ports = set()
    for _ in range(8):
        random.seed(0)
        ports.add(free_port())

    assert len(ports) > 1
    monkeypatch.setattr("collabllm.servers.process.socket.socket", Occupied)
    with pytest.raises(OSError, match="could be bound"):
        free_port()


class Occupied:
    """A socket that can be bound nowhere."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def bind(self, address):
        raise OSError("in use")
