"""OpenAIClient: retries, limits, refusals, usage, cache; keys stay out of every text."""

import asyncio
import logging
import time

import pytest

from collabllm.errors import (
    ContextFullError,
    CostLimitError,
    ReplayMissError,
    ServerError,
)
from collabllm.event_loop import run
from collabllm.servers.cache import ResponseCache
from collabllm.servers.client import OpenAIClient, _TokenLimiter
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
            pytest.raises(ServerError, match="failed 3 times; last: status 500") as error,
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


def test_the_token_limit_waits_for_the_minute_to_pass(monkeypatch):
    now, slept = [0.0], []
    limiter = _TokenLimiter(100, now=lambda: now[0])

    async def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds + 0.1

    monkeypatch.setattr("collabllm.servers.client.asyncio.sleep", sleep)
    asyncio.run(limiter.wait())
    limiter.spend(150)
    now[0] = 10
    asyncio.run(limiter.wait())

    assert slept == [50.0]


def test_the_cost_limit_stops_the_next_request():
    ledger = UsageLedger(max_cost_usd=0.001, prices={"m": (1000.0, 1000.0)})
    with FakeServer(lambda body: "ok") as server:
        client = OpenAIClient(server.url, KEY, ledger=ledger)
        ask(client)

        with pytest.raises(CostLimitError, match=r"\$0.001 is reached"):
            ask(client)

    assert len(server.requests) == 1


def test_cost_adds_up_by_price():
    ledger = UsageLedger()
    ledger.add("user", "gpt-4o-mini", 1_000_000, 0)
    ledger.add("judge", "gpt-4o", 0, 100_000)
    ledger.add("assistant", "local", 9_999_999, 9_999_999)

    assert ledger.cost_usd == pytest.approx(0.15 + 1.0)
    assert ledger.by_role()["assistant"].requests == 1


def test_a_recorded_run_replays_without_a_server(tmp_path):
    with FakeServer(lambda body: "ok") as server:
        cache = ResponseCache(tmp_path / "c.sqlite", "record")
        ask(OpenAIClient(server.url, KEY, cache=cache), seed=1)
        ask(OpenAIClient(server.url, KEY, cache=cache), seed=1)
        assert len(server.requests) == 1
        cache.close()

    replay = OpenAIClient(
        "http://127.0.0.1:9", KEY, cache=ResponseCache(tmp_path / "c.sqlite", "replay")
    )

    assert ask(replay, seed=1).text == "ok"
    with pytest.raises(ReplayMissError, match="record again"):
        ask(replay, seed=2)
    assert KEY.encode() not in (tmp_path / "c.sqlite").read_bytes()


def test_replaying_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recorded cache"):
        ResponseCache(tmp_path / "none.sqlite", "replay")
