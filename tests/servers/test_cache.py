"""ResponseCache: what is one request, what is kept, and what survives."""

import time

import pytest

from collabllm.errors import ReplayMissError
from collabllm.event_loop import run
from collabllm.servers.cache import ResponseCache
from collabllm.servers.client import OpenAIClient
from collabllm.simulation import OpenAIAssistant
from tests.fake_server import FakeServer

KEY = "sk-verysecret"
HI = [{"role": "user", "content": "hi"}]


def ask(client, model="m", **settings):
    return run(client.complete(HI, model, role="user", **settings))


def test_a_recorded_run_replays_without_a_server(tmp_path):
    with FakeServer(lambda body: "ok") as server:
        cache = ResponseCache(tmp_path / "c.sqlite", "record")
        ask(OpenAIClient(server.url, KEY, cache=cache), seed=1)
        ask(OpenAIClient(server.url, KEY, cache=cache), seed=1)
        assert len(server.requests) == 1
        cache.close()

    replay = OpenAIClient(server.url, KEY, cache=ResponseCache(tmp_path / "c.sqlite", "replay"))

    assert ask(replay, seed=1).text == "ok"
    with pytest.raises(ReplayMissError, match="record again"):
        ask(replay, seed=2)
    assert KEY.encode() not in (tmp_path / "c.sqlite").read_bytes()


def test_replaying_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recorded cache"):
        ResponseCache(tmp_path / "none.sqlite", "replay")


def test_two_servers_with_one_model_name_share_no_answers(tmp_path):
    cache = ResponseCache(tmp_path / "c.sqlite", "record")
    with FakeServer(lambda body: "A") as first, FakeServer(lambda body: "B") as second:
        answers = [
            ask(OpenAIClient(server.url, KEY, cache=cache)).text
            for server in (first, second, first, second)
        ]
    cache.close()

    assert answers == ["A", "B", "A", "B"]
    assert len(first.requests) == len(second.requests) == 1


def test_an_adapter_loaded_anew_under_its_name_shares_no_answers(tmp_path):
    cache = ResponseCache(tmp_path / "c.sqlite", "record")
    with FakeServer(lambda body: f"answer {len(server.requests)}") as server:
        client = OpenAIClient(server.url, KEY, cache=cache)
        answers = []
        for revision in ("one", "two", "one"):
            client.adapters.revisions["lora"] = revision
            answers.append(ask(client, "lora").text)
    cache.close()

    assert answers == ["answer 1", "answer 2", "answer 1"]


def test_replies_whose_seeds_are_not_sent_share_no_answers(tmp_path):
    cache = ResponseCache(tmp_path / "c.sqlite", "record")
    with FakeServer(lambda body: f"answer {len(server.requests)}") as server:
        client = OpenAIClient(server.url, KEY, cache=cache)
        assistant = OpenAIAssistant("m", client=client, seeds=False)
        answers = [run(assistant.agenerate(HI, seed=seed)).text for seed in (1, 2, 1)]
    cache.close()

    assert answers == ["answer 1", "answer 2", "answer 1"]
    assert not server.requests[0].keys() & {"seed", "sample"}


def test_empty_and_unreadable_answers_are_asked_for_again(tmp_path):
    cache = ResponseCache(tmp_path / "c.sqlite", "record")
    texts = iter(["", "garbage", "{}", "never"])
    with FakeServer(lambda body: next(texts)) as server:
        client = OpenAIClient(server.url, KEY, cache=cache)
        answers = [
            ask(client, keep_if=lambda answer: answer.text.startswith("{")).text for _ in range(4)
        ]
    cache.close()

    assert answers == ["", "garbage", "{}", "{}"]


def test_a_run_with_useless_answers_replays_as_it_was(tmp_path):
    texts = iter(["", "garbage", "{}"])
    wanted = [{"seed": seed, "keep_if": lambda answer: answer.text == "{}"} for seed in range(3)]
    with FakeServer(lambda body: next(texts)) as server:
        cache = ResponseCache(tmp_path / "c.sqlite", "record")
        for settings in wanted:
            ask(OpenAIClient(server.url, KEY, cache=cache), **settings)
        cache.close()
    replay = OpenAIClient(server.url, KEY, cache=ResponseCache(tmp_path / "c.sqlite", "replay"))

    assert [ask(replay, **settings).text for settings in wanted] == ["", "garbage", "{}"]


class Counting(ResponseCache):
    """Counts transactions."""

    num_commits = 0

    def _commit(self, database, keys):
        self.num_commits += 1
        super()._commit(database, keys)


def test_answers_are_readable_at_once_and_written_in_batches(tmp_path):
    cache = Counting(tmp_path / "c.sqlite", "record")
    for number in range(2000):
        cache.put({"n": number}, {"text": str(number)})
    read = [cache.get({"n": number})["text"] for number in range(2000)]
    cache.close()
    again = ResponseCache(tmp_path / "c.sqlite", "replay")

    assert cache.num_commits < 1000
    assert read == [again.get({"n": number})["text"] for number in range(2000)]
    assert [file.name for file in tmp_path.iterdir()] == ["c.sqlite"]


def test_an_answer_put_twice_is_the_later_one(tmp_path):
    cache = ResponseCache(tmp_path / "c.sqlite", "record")
    cache.put({"n": 1}, {"text": "old"})
    time.sleep(0.3)
    cache.put({"n": 1}, {"text": "new"})
    cache.put({"n": 1}, {"text": "new"})
    cache.close()

    assert ResponseCache(tmp_path / "c.sqlite", "replay").get({"n": 1}) == {"text": "new"}


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    cache = ResponseCache(tmp_path / "c.sqlite", "record")
    with cache._reader:
        cache._reader.execute("DROP TABLE answers")
    cache.put({"n": 1}, {"text": "lost"})

    with pytest.raises(OSError, match="c.sqlite: the cache cannot be written .no such table"):
        cache.close()
