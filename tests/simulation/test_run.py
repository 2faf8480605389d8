"""simulate_chats as a run: settings reach the servers, resumes add up, failures are told."""

import json
from collections import Counter

import pytest

from collabllm.cli import run_script
from collabllm.errors import IncompleteRunError, ServerError
from collabllm.servers.usage import UsageLedger
from collabllm.simulation import simulate_chats
from collabllm.simulation.settings import SimulationSettings
from collabllm.simulation.transcripts import read_transcripts
from scripts.simulate_chats import main
from tests.fake_server import FakeServer, user_json


def answer(body):
    return "reply" if body["model"] == "a" else user_json("message")


def given(server, folder, **settings):
    return {
        "assistant_model": "a",
        "assistant_base_url": server.url,
        "user": "openai",
        "user_model": "u",
        "user_base_url": server.url,
        "max_turns": 1,
        "num_tasks": 3,
        "prices": {"a": (1000.0, 1000.0), "u": (0.0, 0.0)},
        "output_dir": str(folder),
        **settings,
    }


def test_settings_of_reasoning_models_and_users_reach_the_servers(tmp_path):
    with FakeServer(answer) as server:
        main(
            [
                *f"--assistant_base_url {server.url} --assistant_model a --user openai "
                f"--user_model u --user_base_url {server.url} --num_tasks 1 --max_turns 1 "
                f"--top_p 0.8 --reasoning_effort low --enable_thinking false "
                f"--user_temperature 0.3 --output_dir {tmp_path}".split(),
                "--extra_body",
                '{"top_k": 20}',
            ]
        )

    body = next(b for b in server.requests if b["model"] == "a" and b["max_tokens"] != 16)
    assert (body["top_p"], body["reasoning_effort"], body["top_k"]) == (0.8, "low", 20)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    user = next(b for b in server.requests if b["model"] == "u" and b["max_tokens"] != 16)
    assert user["temperature"] == 0.3


def test_time_limit_and_retries_are_settings(tmp_path):
    with FakeServer(answer, delay_s=0.5) as server:
        settings = given(server, tmp_path, timeout_s=0.1, max_retries=0)
        with pytest.raises(ServerError, match="failed 1 times; last: no answer within 0.1 s"):
            simulate_chats(**settings)


def test_a_resumed_run_shows_all_conversations_and_all_that_was_spent(tmp_path, capsys):
    with FakeServer(answer) as server:
        simulate_chats(**given(server, tmp_path))
        simulate_chats(**given(server, tmp_path, num_tasks=5, resume=True))
        delivered = {(model, name): number for (model, name), number in server.delivered.items()}

    printed = capsys.readouterr().out
    assert "3 of 3 conversations" in printed
    assert "5 of 5 conversations" in printed
    header = json.loads((tmp_path / "transcripts.run.json").read_text())
    usage = {model: numbers for _, model, _, *numbers in header["usage"]}
    assert usage == {
        model: [
            delivered[model, "requests"],
            delivered[model, "prompt_tokens"],
            delivered[model, "completion_tokens"],
            0,
        ]
        for model in ("a", "u")
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "transcripts.jsonl",
        "transcripts.run.json",
    ]
    tokens = delivered["a", "prompt_tokens"] + delivered["a", "completion_tokens"]
    assert header["spent_usd"] == pytest.approx(tokens * 1000 / 1e6)


def test_what_a_killed_run_used_is_not_forgotten(tmp_path, capsys):
    with FakeServer(answer) as server:
        simulate_chats(**given(server, tmp_path))
        ledger = UsageLedger()
        ledger.start_journal(tmp_path / ".transcripts.run.usage-2.jsonl")
        who = "assistant", "a", "killed"
        for _ in range(4):
            ledger.count_sent(*who)
        ledger.count_answered(*who, 1_000_000, 0)
        ledger.count_refused(*who)
        simulate_chats(**given(server, tmp_path, num_tasks=4, resume=True))
        simulate_chats(**given(server, tmp_path, num_tasks=5, resume=True))

    header = json.loads((tmp_path / "transcripts.run.json").read_text())
    killed = [numbers for _, _, address, *numbers in header["usage"] if address == "killed"]
    assert killed == [[1, 1_000_000, 0, 2]], "neither lost nor counted twice; two were under way"
    assert "2 requests were sent and their answers never read" in capsys.readouterr().out
    assert header["spent_usd"] > 1000


def test_a_resume_with_other_settings_or_prompts_is_refused(tmp_path, monkeypatch):
    with FakeServer(answer) as server:
        simulate_chats(**given(server, tmp_path))
        with pytest.raises(ValueError, match="--resume: temperature was 0.7 and is 0.1 now"):
            simulate_chats(**given(server, tmp_path, resume=True, temperature=0.1))
        monkeypatch.setattr("collabllm.provenance.prompt_hashes", lambda: {"user_simulator": "x"})
        with pytest.raises(ValueError, match="--resume: the prompt user_simulator was"):
            simulate_chats(**given(server, tmp_path, resume=True))


def test_a_resume_with_other_tasks_or_weights_or_without_its_header_is_refused(tmp_path):
    tasks, adapter, run = tmp_path / "tasks.jsonl", tmp_path / "adapter", tmp_path / "run"
    header, weights = run / "transcripts.run.json", adapter / "adapter_model.safetensors"

    def write_tasks(opening, number=2):
        rows = [{"task_id": f"t{i}", "single_turn_prompt": "Sail"} for i in range(number)]
        tasks.write_text("".join(json.dumps({**row, "opening": opening}) + "\n" for row in rows))

    write_tasks("Help me.")
    adapter.mkdir()
    weights.write_bytes(b"one")
    with FakeServer(answer) as server:
        settings = given(server, run, tasks=str(tasks), lora_path=str(adapter), num_tasks=None)
        simulate_chats(**settings)
        settings["resume"] = True
        write_tasks("Help me.", number=3)
        assert len(simulate_chats(**settings)) == 3  # more tasks are no others
        write_tasks("Help us.")
        with pytest.raises(ValueError, match="--resume: the content of task t0 was '.*' and is"):
            simulate_chats(**settings)
        write_tasks("Help me.")
        weights.write_bytes(b"two")
        with pytest.raises(ValueError, match=r"--resume: the content of adapter .*adapter was '"):
            simulate_chats(**settings)
        former = json.loads(header.read_text())
        del former["contents"]
        header.write_text(json.dumps(former))
        assert len(simulate_chats(**settings)) == 3  # of a version that knew no contents
        header.unlink()
        with pytest.raises(FileNotFoundError, match=r"run\.json is missing, which says what made"):
            simulate_chats(**settings)


def test_the_cost_limit_counts_what_was_spent_before(tmp_path):
    with FakeServer(answer) as server:
        simulate_chats(**given(server, tmp_path, max_cost=10.0))
        sent = len(server.requests)
        with pytest.raises(IncompleteRunError, match="6 were not started or were cancelled"):
            simulate_chats(**given(server, tmp_path, num_tasks=9, resume=True, max_cost=0.001))

    assert len(server.requests) - sent <= 2, "the preflight alone, if anything"


def test_conversations_that_failed_make_the_run_incomplete_and_run_again(tmp_path):
    with FakeServer(answer) as server:
        server.reject = lambda body: (
            (400, {"error": {"message": "no"}})
            if body["model"] == "a" and body["max_tokens"] != 16
            else None
        )
        with pytest.raises(IncompleteRunError, match="3 ended as server_error"):
            simulate_chats(**given(server, tmp_path))
        early = (
            r"20 conversations all ended as .* What has ended is kept\. Go on with .*resume=True"
        )
        with pytest.raises(IncompleteRunError, match=early):
            simulate_chats(**given(server, tmp_path / "many", num_tasks=30))
        server.reject = None
        simulate_chats(**given(server, tmp_path, resume=True))

    assert [line["failed"] for line in read_transcripts(tmp_path / "transcripts.jsonl")] == [
        False
    ] * 3


def test_a_wrong_key_stops_the_script_before_work_with_address_and_variable(tmp_path, capsys):
    with FakeServer(answer) as server:
        server.reject = lambda body: (401, {"error": {"code": "invalid_api_key"}})
        words = (
            f"--assistant_base_url {server.url} --assistant_model a --num_tasks 3 "
            f"--output_dir {tmp_path}"
        )
        with pytest.raises(SystemExit) as stop:
            run_script(lambda: main(words.split()))

    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert f"{server.url} refused the request (401, invalid_api_key)" in printed
    assert "OPENAI_API_KEY" in printed
    assert len(server.requests) == 1
    assert not (tmp_path / "transcripts.jsonl").exists()


def test_seconds_of_conversations_that_ran_together_are_marked(tmp_path):
    with FakeServer(answer) as server:
        together = list(simulate_chats(**given(server, tmp_path / "a")))
        alone = list(simulate_chats(**given(server, tmp_path / "b", concurrency=1)))

    assert [record.shared_time for record in together] == [True] * 3
    assert [record.shared_time for record in alone] == [False] * 3


def test_settings_that_do_not_fit_are_refused_before_work(tmp_path):
    with pytest.raises(ValueError, match="matcher must be .* got 'meaning'"):
        simulate_chats(user="matcher=meaning", output_dir=str(tmp_path))
    with pytest.raises(ValueError, match="--extra_body is for an assistant behind a server"):
        simulate_chats(extra_body={"top_k": 1}, output_dir=str(tmp_path))


@pytest.fixture
def three_servers():
    with FakeServer(answer) as a, FakeServer(answer) as b, FakeServer(answer) as c:
        yield a, b, c


def _turns_by_conversation(server):
    """Count the requests of each conversation that this server got, by its opening."""
    asked = [b["messages"] for b in server.requests if b["model"] == "a" and b["max_tokens"] != 16]
    return Counter(next(m["content"] for m in talk if m["role"] == "user") for talk in asked)


def test_several_addresses_on_the_command_line_share_the_conversations(
    three_servers, tmp_path, capsys
):
    urls = [server.url for server in three_servers]

    words = ["--assistant_model", "a", "--assistant_base_url", *urls, "--num_tasks", "60"]
    main([*words, "--max_turns", "2", "--output_dir", str(tmp_path)])

    talks = [_turns_by_conversation(server) for server in three_servers]
    assert all(talks)
    assert sum(map(len, talks)) == len(set().union(*talks)) == 60  # none is split over servers
    assert {count for talk in talks for count in talk.values()} == {2}
    printed = capsys.readouterr().out
    for server in three_servers:
        assert f"server {server.url}: {server.delivered['a', 'requests']} requests" in printed


def test_several_addresses_in_yaml_serve_assistant_and_users(three_servers, tmp_path):
    urls = [server.url for server in three_servers]
    config = tmp_path / "config.yaml"
    lists = {"assistant_base_url": urls, "user_base_url": urls[1:]}
    config.write_text(json.dumps(lists))

    for server in three_servers:  # conversations keep to servers by their openings
        server.answer = lambda body: (
            "reply" if body["model"] == "a" else user_json(f"message {hash(str(body))}")
        )
    words = "--assistant_model a --user openai --user_model u --num_tasks 60 --max_turns 1"
    main(["--config", str(config), *words.split(), "--output_dir", str(tmp_path / "run")])

    a, b, c = three_servers
    assert all(server.delivered["a", "requests"] > 1 for server in (a, b, c))
    assert a.delivered["u", "requests"] == 0
    assert min(b.delivered["u", "requests"], c.delivered["u", "requests"]) > 1


def test_a_run_goes_on_with_other_addresses_and_without_a_dead_one(three_servers, tmp_path, caplog):
    a, b, _ = three_servers
    settings = {"max_retries": 1}
    simulate_chats(**given(a, tmp_path, num_tasks=2, **settings))

    urls = [a.url, b.url, "http://127.0.0.1:9/v1"]
    settings |= {"assistant_base_url": urls, "num_tasks": 12, "resume": True}
    transcripts = simulate_chats(**given(a, tmp_path, **settings))

    assert len(transcripts) == 12
    assert "Going on without a server: http://127.0.0.1:9/v1 failed" in caplog.text


def test_a_cost_names_the_models_that_it_leaves_out(tmp_path, capsys):
    with FakeServer(answer) as server:
        simulate_chats(**given(server, tmp_path, prices={"u": (1000.0, 1000.0)}))

    (cost,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Cost")]
    assert cost.endswith(", without a: no price is known (--prices)")


def test_a_users_address_is_no_setting_and_its_password_is_not_written(tmp_path):
    with FakeServer(answer) as server:
        for address in (server.url.replace("http://", "http://bob:hunter2@"), server.url):
            user = f"kind=openai,model=u,base_url={address}"
            settings = given(server, tmp_path, user=user, user_base_url=None, resume=True)
            assert len(simulate_chats(**settings)) == 3

    texts = [file.read_text() for file in tmp_path.iterdir()]
    assert not any("hunter2" in text for text in texts)


def test_one_address_is_one_and_two_alike_are_refused():
    assert SimulationSettings(assistant_base_url=["http://a/v1"]).assistant_base_url == (
        "http://a/v1"
    )
    with pytest.raises(ValueError, match="--user_base_url needs one address or several different"):
        SimulationSettings(user_base_url=["http://a/v1", "http://a/v1"])


def test_one_server_is_not_listed_beside_its_roles():
    ledger = UsageLedger()
    ledger.add("assistant", "a", 1000, 20, "http://a/v1")
    assert ledger.to_lines() == ["assistant: 1 requests, 1,000 prompt and 20 completion tokens"]

    ledger.add("user", "u", 10, 2, "http://b/v1")
    assert ledger.to_lines()[2:] == [
        "server http://a/v1: 1 requests, 1,000 prompt and 20 completion tokens",
        "server http://b/v1: 1 requests, 10 prompt and 2 completion tokens",
    ]
