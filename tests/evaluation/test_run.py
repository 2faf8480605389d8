"""scripts/evaluate.py from flags to report: arms behind a server and on one model, resume."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from collabllm import models
from collabllm.simulation import LocalAssistant
from scripts.evaluate import main
from tests.fake_server import FakeServer, user_json
from tests.training.conftest import save_tiny_model


def answer(body):
    """`asker` asks for everything, `talker` never asks."""
    if body["model"] == "user":
        return user_json("tell me more")
    if body["model"] == "judge":
        return '{"score": 1}'
    if body["model"] == "asker":
        return "When and where? How many people? What is the budget, the topic, the error?"
    return "Here is something."


def flags(server, folder, *more, arms=("asker", "talker")):
    words = ["--output", str(folder), "--tasks", write_tasks(folder), "--max_turns", "2"]
    for arm in arms:
        words += ["--arm", f"name={arm},model={arm},base_url={server.url}"]
    return [*words, *more]


def write_tasks(folder):
    """Write six tasks with three facts, two of which `asker` asks for."""
    path = folder.parent / f"{folder.name}-tasks.jsonl"
    facts = [
        {"name": "when", "answer": "On Friday.", "cues": ["when"], "value": "Friday"},
        {"name": "guests", "answer": "12 people.", "cues": ["many", "people"], "value": "12"},
        {"name": "colour", "answer": "Make it blue.", "cues": ["colour"], "value": "blue"},
    ]
    tasks = [
        {"task_id": f"party-{i}", "single_turn_prompt": f"Party {i}", "opening": f"Party {i}!"}
        for i in range(6)
    ]
    path.write_text("".join(json.dumps({**task, "facts": facts}) + "\n" for task in tasks))
    return str(path)


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_arms_meet_the_same_users_on_the_same_tasks(tmp_path, capsys):
    folder = tmp_path / "e"
    with FakeServer(answer) as server:
        main(flags(server, folder, "--num_told", "0", "3", "--num_rollouts", "2"))

    asker = read(folder / "transcripts/asker--sharded.jsonl")
    talker = read(folder / "transcripts/talker--sharded.jsonl")
    keys = [
        sorted((r["task_id"], r["rollout_idx"], r["seeds"][0]) for r in records)
        for records in (asker, talker)
    ]
    assert keys[0] == keys[1]
    assert len(asker) == 24
    results = results_of(folder)
    difference = next(
        d for d in results["differences"] if (d["metric"], d["num_told"]) == ("facts_elicited", 0)
    )
    assert (difference["arm"], difference["reference"]) == ("talker", "asker")
    assert difference["mean"] < 0
    (asking, silent) = results["over_asking"]
    assert (asking["needed"]["mean"], asking["needless"]["mean"]) == (1.0, 1.0)
    assert (silent["needed"]["mean"], silent["needless"]["mean"]) == (0.0, 0.0)
    first = next(s for s in read(folder / "scores.jsonl") if s["num_told"] == 0)["replies"][0]
    assert (first["questions"], first["tokens"]) == (3, 19)  # 74 bytes, 4 a token
    assert first["facts_told"] + first["needless"] == 3
    assert results["usage"]["assistant"]["requests"] == len(server.requests)
    assert "user_simulator" in results["prompt_hashes"]
    assert "### User sharded, vague openings" in (folder / "table.md").read_text()
    assert (folder / "report.html").stat().st_size > 20_000
    assert f"Report: {folder / 'report.html'}" in capsys.readouterr().out


def test_two_identical_arms_show_no_difference(tmp_path):
    with FakeServer(answer) as server:
        twin = f"name=twin,model=asker,base_url={server.url}"
        main(flags(server, tmp_path, "--arm", twin, arms=("asker",)))

    for difference in results_of(tmp_path)["differences"]:
        if difference["metric"] != "seconds":
            assert (difference["mean"], difference["p_value"]) == (0.0, 1.0)


def test_the_panel_of_users_is_a_column_of_its_own(tmp_path):
    with FakeServer(answer) as server:
        llm = f"name=llm,kind=openai,model=user,base_url={server.url},num_traits=2"
        main(
            flags(
                server, tmp_path, "--user", "sharded", "--user", llm, "--user", "name=x,patience=1"
            )
        )

    assert {s["user"] for s in results_of(tmp_path)["summaries"]} == {"sharded", "llm", "x"}
    assert (tmp_path / "transcripts/talker--llm.jsonl").is_file()


def test_an_evaluation_goes_on_without_repeating_what_is_done(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        first = results_of(tmp_path)
        scores = tmp_path / "scores.jsonl"
        whole = scores.read_text().splitlines(keepends=True)
        scores.write_text("".join(whole[:4]) + '{"arm": "as')  # killed while scoring
        transcripts = tmp_path / "transcripts/talker--sharded.jsonl"
        lines = transcripts.read_text().splitlines(keepends=True)
        transcripts.write_text("".join(lines[:5]))
        server.requests.clear()
        main(flags(server, tmp_path, "--resume"))

    again = results_of(tmp_path)
    assert {body["model"] for body in server.requests} == {"talker"}
    assert len(server.requests) <= 2
    assert len(read(scores)) == len(whole) == 12
    drop = ("seconds",)
    for name in ("summaries", "differences"):
        assert [s for s in again[name] if s["metric"] not in drop] == [
            s for s in first[name] if s["metric"] not in drop
        ]
    with FakeServer(answer) as server, pytest.raises(FileExistsError, match="--resume"):
        main(flags(server, tmp_path))


def test_other_settings_are_refused_when_going_on(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        with pytest.raises(ValueError, match="max_turns was 2 and is 3 now"):
            main([*flags(server, tmp_path, "--resume"), "--max_turns", "3"])


def test_a_judge_that_fails_is_missing_and_loud(tmp_path, caplog):
    with FakeServer(answer) as server:
        judge = ["--judge_model", "broken", "--judge_base_url", server.url]
        server.reject = lambda body: (403, {}) if body["model"] == "broken" else None
        main(flags(server, tmp_path, *judge, "--metrics", "interactivity", "repetition"))

    summary = next(s for s in results_of(tmp_path)["summaries"] if s["metric"] == "interactivity")
    assert (summary["mean"], summary["num_missing"]) == (None, 6)
    assert "ATTENTION: interactivity of arm asker is missing in 6 of 6" in caplog.text


def test_wrong_flags_stop_before_anything_runs(tmp_path, capsys):
    with FakeServer(answer) as server:
        with pytest.raises(ValueError, match="--reference x is not an arm"):
            main(flags(server, tmp_path, "--reference", "x"))
        with pytest.raises(ValueError, match="did you mean 'facts_elicited'"):
            main(flags(server, tmp_path, "--metrics", "facts_elicted"))
        with pytest.raises(SystemExit):
            main(["--arm", "lora_path=x"])
    assert server.requests == []
    assert "needs name=NAME" in capsys.readouterr().err


def test_means_are_logged_to_a_tracker_when_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with FakeServer(answer) as server:
        main(flags(server, tmp_path / "e", "--report_to", "wandb"))

    import wandb

    wandb.teardown()  # its session outlives a run, and belongs to this folder
    assert list(tmp_path.glob("**/offline-run-*/*.wandb"))


def save_adapter(folder, base, seed):
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(models.load_base_model(str(base)), config).save_pretrained(folder)
    return str(folder)


def test_local_arms_share_one_copy_of_the_weights_and_do_not_mix(tmp_path, monkeypatch):
    base = save_tiny_model(tmp_path / "tiny")
    adapters = [save_adapter(tmp_path / f"a{i}", base, i) for i in (1, 2)]
    loads = []
    load = models.load_base_model
    monkeypatch.setattr(
        models, "load_base_model", lambda *args, **kwargs: loads.append(1) or load(*args, **kwargs)
    )
    # Only in float32 are replies the same alone as in a batch.
    monkeypatch.setattr(models, "choose_dtype", lambda **_: torch.float32)
    words = ["--hf_model_path", str(base), "--temperature", "0", "--max_new_tokens", "12"]
    words += ["--num_tasks", "3", "--max_turns", "1", "--output", str(tmp_path / "e")]
    for arm in ("name=base", f"name=one,lora_path={adapters[0]}"):
        words += ["--arm", arm]
    words += ["--arm", f"name=two,lora_path={adapters[1]}", "--arm", "name=base again"]
    main(words)

    assert len(loads) == 1
    replies = {}
    for arm in ("base", "one", "two", "base again"):
        records = read(tmp_path / f"e/transcripts/{arm}--sharded.jsonl")
        replies[arm] = {r["task_id"]: r["messages"] for r in records}
    assert replies["base"] == replies["base again"]
    for arm, adapter in (("base", None), ("one", adapters[0]), ("two", adapters[1])):
        with LocalAssistant(
            str(base), adapter, max_new_tokens=12, do_sample=False, dtype="float32"
        ) as alone:
            for messages in replies[arm].values():
                assert messages[-1]["content"] == alone.generate(messages[:-1])
    texts = [json.dumps(replies[arm]) for arm in ("base", "one", "two")]
    assert len(set(texts)) == 3
