"""Several servers: a conversation keeps to one, a dead one is left out and taken back."""

import asyncio
import time
from collections import Counter

import pytest

from collabllm.errors import ServerError
from collabllm.event_loop import run
from collabllm.servers.client import OpenAIClient
from collabllm.servers.connection import Connection
from collabllm.servers.pool import ServerPool
from collabllm.simulation import OpenAIAssistant, RuleBasedUser, simulate
from collabllm.tasks import Task
from tests.fake_server import FakeServer


def make_pool(clock, num=3):
    servers = [Connection(f"http://h{i}/v1", "k", 1, None) for i in range(num)]
    return ServerPool(servers, now=lambda: clock[0])


def test_affinities_spread_over_servers_and_stay():
    pool = make_pool([0.0])
    first = {f"talk {i}": pool.choose(f"talk {i}") for i in range(300)}

    assert all(pool.choose(name) is server for name, server in first.items())
    assert min(Counter(first.values()).values()) > 75


def test_when_a_server_is_out_only_its_own_conversations_move():
    clock = [0.0]
    pool = make_pool(clock)
    before = {f"talk {i}": pool.choose(f"talk {i}") for i in range(300)}
    dead = pool.servers[0]
    pool.failed(dead)
    assert pool.choose(next(n for n, s in before.items() if s is dead)) is dead
    pool.failed(dead)
    after = {name: pool.choose(name) for name in before}

    assert pool.has_other(dead)
    assert dead not in after.values()
    assert all(after[name] is server for name, server in before.items() if server is not dead)


def test_one_request_tries_a_server_again_and_its_success_brings_all_back():
    clock = [0.0]
    pool = make_pool(clock)
    dead = pool.servers[0]
    own = [f"talk {i}" for i in range(100) if pool.choose(f"talk {i}") is dead]
    pool.failed(dead)
    pool.failed(dead)
    clock[0] = 11.0
    tries = [pool.choose(name) for name in own]
    pool.succeeded(dead)

    assert tries.count(dead) == 1
    assert tries[0] is dead
    assert {pool.choose(name) for name in own} == {dead}


def test_with_all_servers_out_the_one_out_longest_is_tried():
    clock = [0.0]
    pool = make_pool(clock, 2)
    for server in pool.servers:
        pool.failed(server)
        pool.failed(server)
        clock[0] += 1

    assert pool.choose("x") is pool.servers[0]
    assert not pool.has_other(pool.servers[1])


def test_a_run_over_three_servers_of_which_one_dies_and_comes_back(monkeypatch):
    """Every conversation is complete; each keeps to its server; the ledger is what they counted."""
    monkeypatch.setattr("collabllm.servers.pool._OUT_S", 0.2)
    asked = []

    def reject(body):
        """Die for 0.4 s at the 20th request."""
        asked.append(time.monotonic())
        is_dead = len(asked) >= 20 and asked[-1] < asked[19] + 0.4
        return (503, {"error": {}}) if is_dead else None

    def answer(body):
        return "Which one?"

    with (
        FakeServer(answer, delay_s=0.05) as a,
        FakeServer(answer, delay_s=0.05) as b,
        FakeServer(answer, delay_s=0.05) as c,
    ):
        a.reject = reject
        client = OpenAIClient([s.url for s in (a, b, c)], "k", max_retries=8)
        tasks = [Task(str(i), f"goal {i}") for i in range(200)]
        records = list(
            simulate(
                tasks,
                OpenAIAssistant("m", client=client),
                lambda task, seed: RuleBasedUser((), task.single_turn_prompt),
                max_turns=3,
                concurrency=20,
                progress=False,
            )
        )

    by_server = client.ledger.by_server()
    assert [len(record.result.messages) for record in records] == [6] * 200
    assert {s.url: by_server[s.url].requests for s in (a, b, c)} == {
        s.url: s.delivered["m", "requests"] for s in (a, b, c)
    }
    assert sum(usage.requests for usage in by_server.values()) == 600
    talks = Counter(body["messages"][0]["content"] for body in b.requests)
    assert Counter(talks.values())[3] >= 30  # all turns of most of its conversations
    assert a.delivered["m", "requests"] > 60  # 19 before it died


def test_a_server_that_is_down_and_asks_to_wait_is_left_out():
    async def many(client):
        talks = ([{"role": "user", "content": str(i)}] for i in range(12))
        return await asyncio.gather(*(client.complete(t, "m", role="user") for t in talks))

    with FakeServer(lambda body: "ok") as down, FakeServer(lambda body: "ok") as up:
        down.reject = lambda body: (503, {"error": {}}, {"retry-after": "0.1"})
        answers = run(many(OpenAIClient([down.url, up.url], "k", max_retries=3)))

    assert [answer.text for answer in answers] == ["ok"] * 12
    assert down.requests


def test_preflight_needs_one_server_of_several(caplog):
    with FakeServer(lambda body: "OK") as server:
        client = OpenAIClient([server.url, "http://127.0.0.1:9/v1"], "k", max_retries=0)
        run(client.preflight("m", role="assistant"))
        for text in "abcdefgh":  # those whose server it would be, too
            assert run(client.complete([{"role": "user", "content": text}], "m", role="user")).text
    assert "Going on without a server: http://127.0.0.1:9/v1 failed" in caplog.text

    dead = OpenAIClient(["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"], "k", max_retries=0)
    with pytest.raises(ServerError, match="127.0.0.1:9/v1 failed"):
        run(dead.preflight("m", role="assistant"))
    with pytest.raises(ValueError, match="several different ones"):
        OpenAIClient(["http://h", "http://h"])


def test_an_adapter_is_loaded_into_every_server():
    with FakeServer(lambda body: "ok") as a, FakeServer(lambda body: "ok") as b:
        client = OpenAIClient([a.url, b.url], "k")
        assistant = OpenAIAssistant("base", client=client)
        assistant.load_lora("mine", "/adapters/mine")

        async def many():
            talks = ([{"role": "user", "content": str(i)}] for i in range(32))
            await asyncio.gather(*(assistant.agenerate(talk) for talk in talks))

        run(many())

    for server in (a, b):
        assert server.requests[0] == {"lora_name": "mine", "lora_path": "/adapters/mine"}
        assert {body["model"] for body in server.requests[1:]} == {"mine"}
