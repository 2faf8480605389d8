"""scripts/evaluate.py from flags to report: arms behind a server and on one model, resume."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from collabllm import models
from collabllm.errors import IncompleteRunError, ServerError
from collabllm.evaluation import read_results
from collabllm.evaluation.planning import _changes
from collabllm.evaluation.results import ArmInfo
from collabllm.rewards import MetricValue, register_metric
from collabllm.servers.kept_usage import read_usage
from collabllm.simulation import LocalAssistant
from scripts.evaluate import main
from tests.evaluation.report_data import make_plan
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


def after_preflight(body):
    """Refuse a request, but for the preflight's."""
    return None if body["max_tokens"] == 16 else (403, {})


def flags(server, folder, *more, arms=("asker", "talker")):
    words = ["--output", str(folder), "--tasks", write_tasks(folder), "--max_turns", "2"]
    for arm in arms:
        words += ["--arm", f"name={arm},model={arm},base_url={server.url}"]
    return [*words, *more]


def write_tasks(folder, number=6):
    """Write tasks with three facts, two of which `asker` asks for."""
    path = folder.parent / f"{folder.name}-tasks.jsonl"
    facts = [
        {"name": "when", "answer": "On Friday.", "cues": ["when"], "value": "Friday"},
        {"name": "guests", "answer": "12 people.", "cues": ["many", "people"], "value": "12"},
        {"name": "colour", "answer": "Make it blue.", "cues": ["colour"], "value": "blue"},
    ]
    tasks = [
        {"task_id": f"party-{i}", "single_turn_prompt": f"Party {i}", "opening": f"Party {i}!"}
        for i in range(number)
    ]
    path.write_text("".join(json.dumps({**task, "facts": facts}) + "\n" for task in tasks))
    return str(path)


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def difference(results, metric, opening, user="sharded"):
    arm, other = (arm.name for arm in results.arms[1::-1])
    return results.difference(arm, other, user, opening, metric)


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
    results = read_results(folder)
    elicited = difference(results, "facts_elicited", "none")
    assert (elicited.arm, elicited.reference, elicited.primary) == ("talker", "asker", True)
    # Two sign patterns of 64; two primary outcomes, which have nine tenths of the error rate.
    assert elicited.p_value == 0.03125
    assert elicited.p_corrected == pytest.approx(0.03125 / 0.45)
    assert elicited.verdict == "cannot tell"
    assert (elicited.num_tasks, elicited.wins, elicited.losses) == (6, 0, 6)
    asking = {(p.arm, p.share_told): p.mean for p in results.asking}
    assert asking == {
        ("asker", 0.0): 1.0,
        ("asker", 1.0): 1.0,
        ("talker", 0.0): 0.0,
        ("talker", 1.0): 0.0,
    }
    score = next(s for s in read(folder / "scores.jsonl") if s["opening"] == "none")
    first = score["replies"][0]
    assert (first["questions"], first["tokens"]) == (3, 19)  # 74 bytes, 4 a token
    assert first["facts_told"] + first["needless"] == 3
    assert results.complete
    assert results.usage["assistant"]["requests"] == len(server.requests)
    assert "user_simulator" in results.prompt_hashes
    assert (folder / "report.html").stat().st_size > 20_000
    assert f"Report: {folder / 'report.html'}" in capsys.readouterr().out


def test_two_identical_arms_show_no_difference(tmp_path):
    with FakeServer(answer) as server:
        twin = f"name=twin,model=asker,base_url={server.url}"
        main(flags(server, tmp_path, "--arm", twin, arms=("asker",)))

    tested = [d for d in read_results(tmp_path).differences if d.p_value is not None]
    assert {(d.mean, d.p_value, d.verdict) for d in tested} == {(0.0, 1.0, "cannot tell")}
    assert all(d.low < 0 < d.high for d in tested)


def test_the_panel_of_users_is_pooled_and_kept_apart(tmp_path):
    with FakeServer(answer) as server:
        llm = f"name=llm,kind=openai,model=user,base_url={server.url},num_traits=2"
        users = ["--user", "sharded", "--user", llm, "--user", "name=x,patience=1"]
        main(flags(server, tmp_path, *users))

    results = read_results(tmp_path)
    assert results.user_names == ["all users", "sharded", "llm", "x"]
    assert {d.user for d in results.primary_differences()} == {"all users"}
    pooled = results.cell("asker", "all users", "none", "facts_elicited")
    assert (pooled.num_tasks, pooled.num_values) == (6, 18)
    assert (tmp_path / "transcripts/talker--llm.jsonl").is_file()


def without_seconds(cells):
    """Leave out what only conversations that ran alone have."""
    return [cell for cell in cells if cell.metric != "seconds"]


def test_an_evaluation_goes_on_without_repeating_what_is_done(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        first = read_results(tmp_path)
        scores = tmp_path / "scores.jsonl"
        whole = scores.read_text().splitlines(keepends=True)
        scores.write_text("".join(whole[:4]) + '{"arm": "as')  # killed while scoring
        transcripts = tmp_path / "transcripts/talker--sharded.jsonl"
        lines = transcripts.read_text().splitlines(keepends=True)
        transcripts.write_text("".join(lines[:11]))
        server.requests.clear()
        main(flags(server, tmp_path, "--resume"))
        repeated = len(server.requests)

    again = read_results(tmp_path)
    assert {body["model"] for body in server.requests} == {"talker"}
    assert repeated <= 3, "one conversation of two turns, and its server's preflight"
    assert len(read(scores)) == len(whole) == 24
    assert without_seconds(first.cells) == without_seconds(again.cells)
    assert again.usage["assistant"]["requests"] == first.usage["assistant"]["requests"] + repeated
    with FakeServer(answer) as server, pytest.raises(FileExistsError, match="use --resume"):
        main(flags(server, tmp_path))


def test_other_settings_are_refused_when_going_on(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        with pytest.raises(ValueError, match="max_turns was 2 and is 3 now"):
            main([*flags(server, tmp_path, "--resume"), "--max_turns", "3"])
        other = f"name=asker,model=talker,base_url={server.url}"
        with pytest.raises(ValueError, match="--arm asker was .* give the new one another name"):
            main([*flags(server, tmp_path, "--resume", arms=()), "--arm", other])


def test_an_edited_task_is_refused_when_going_on(tmp_path):
    folder = tmp_path / "e"
    with FakeServer(answer) as server:
        main(flags(server, folder))
        words = flags(server, folder, "--resume", arms=("third",))
        tasks = tmp_path / "e-tasks.jsonl"
        tasks.write_text(tasks.read_text().replace("On Friday.", "On Friday, early."))
        with pytest.raises(ValueError, match="--resume: the content of task party-0 was"):
            main(words)


def test_an_arm_a_user_a_metric_and_rollouts_are_added_without_repeating_the_rest(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path, "--metrics", "facts_elicited"))
        before = read(tmp_path / "scores.jsonl")
        server.requests.clear()
        main(flags(server, tmp_path, "--resume", "--metrics", "repetition", arms=()))
        assert server.requests == []
        main(flags(server, tmp_path, "--resume", arms=("third",)))
        assert {body["model"] for body in server.requests} == {"third"}
        server.requests.clear()
        main(flags(server, tmp_path, "--resume", "--num_rollouts", "2", arms=()))
        main(flags(server, tmp_path, "--resume", "--user", "name=x,patience=1", arms=()))

    results = read_results(tmp_path)
    assert [arm.name for arm in results.arms] == ["asker", "talker", "third"]
    assert results.reference == "asker"
    assert {user.name for user in results.users} == {"sharded", "x"}
    assert results.complete
    assert results.num_rollouts == 2
    assert results.cell("talker", "sharded", "none", "repetition").num_values == 12
    lines = {
        (s["arm"], s["task_id"]): s
        for s in read(tmp_path / "scores.jsonl")
        if s["user"] == "sharded" and not s["rollout_idx"]
    }
    for line in before:
        now = lines[line["arm"], line["task_id"]]
        assert now["values"].keys() == {*line["values"], "repetition"}
        assert now["values"]["facts_elicited"] == line["values"]["facts_elicited"]


def test_a_judge_that_fails_is_missing_loud_and_tried_again(tmp_path, caplog):
    judge = ["--judge_model", "judge", "--metrics", "interactivity", "repetition"]
    with FakeServer(answer) as server:
        judge += ["--judge_base_url", server.url]
        server.reject = lambda body: after_preflight(body) if body["model"] == "judge" else None
        main(flags(server, tmp_path, *judge))
        cell = read_results(tmp_path).cell("asker", "sharded", "none", "interactivity")
        server.reject = None
        server.requests.clear()
        main(flags(server, tmp_path, *judge, "--resume"))

    assert (cell.mean, cell.num_missing, cell.num_values) == (None, 6, 0)
    assert (cell.worst_low, cell.worst_high) == (0.0, 1.0)
    assert "ATTENTION: interactivity of arm asker is missing in 6 of 6" in caplog.text
    assert {body["model"] for body in server.requests} == {"judge"}
    again = read_results(tmp_path).cell("asker", "sharded", "none", "interactivity")
    assert (again.mean, again.num_missing) == (1.0, 0)


def test_metrics_are_scored_anew_when_asked(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        scores = tmp_path / "scores.jsonl"
        spoilt = scores.read_text().replace('"facts_used": ', '"facts_used": 7')
        scores.write_text(spoilt)
        server.requests.clear()
        main(flags(server, tmp_path, "--resume", "--rescore", "facts_used"))

    assert server.requests == []
    cell = read_results(tmp_path).cell("asker", "sharded", "none", "facts_used")
    assert (cell.mean, cell.num_values) == (0.0, 6)


def test_built_in_measures_are_computed_anew_when_asked(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        scores = tmp_path / "scores.jsonl"
        before = read(scores)
        spoilt = [{**s, "values": {**s["values"], "first_reply_asks": 0.5}} for s in before]
        scores.write_text("".join(json.dumps(line) + "\n" for line in spoilt))
        server.requests.clear()
        main(flags(server, tmp_path, "--resume", "--rescore", "first_reply_asks"))

    assert server.requests == []
    assert {s["task_id"]: s for s in read(scores) if s["arm"] == "asker"} == {
        s["task_id"]: s for s in before if s["arm"] == "asker"
    }
    assert read_results(tmp_path).cell("talker", "sharded", "none", "first_reply_asks").mean == 0.0


def test_a_metric_that_there_is_not_is_not_scored_anew(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        with pytest.raises(ValueError, match="--rescore facts_usde: no metric of this evaluation"):
            main(flags(server, tmp_path, "--resume", "--rescore", "facts_usde"))


def test_replies_that_tamper_with_a_metric_are_counted(tmp_path, caplog):
    caught = ["asks"]

    async def cheated(messages, task, tools):
        asks = any("?" in m["content"] for m in messages if m["role"] == "assistant")
        return MetricValue(0.0, "tampered: it left a trace") if asks and caught else 1.0

    def count(arm):
        return read_results(tmp_path).cell(arm, "sharded", "none", "cheated").num_tampered

    register_metric("cheated", cheated)
    with FakeServer(answer) as server:
        main(flags(server, tmp_path, "--metrics", "cheated"))
        assert (count("asker"), count("talker")) == (6, 0)
        assert "cheated of arm asker is 0 in 6 of 6 conversations (opening: none)" in caplog.text
        assert '"tampered":6' in (tmp_path / "report.html").read_text()
        caught.clear()
        main(flags(server, tmp_path, "--resume", "--rescore", "cheated"))

    assert count("asker") == 0


def test_a_run_that_the_cost_limit_ends_is_not_presented_as_complete(tmp_path, caplog):
    prices = ["--prices", '{"asker": [1000, 1000], "talker": [1000, 1000]}']
    with FakeServer(answer) as server:
        with pytest.raises(IncompleteRunError, match="resume=True"):
            main(flags(server, tmp_path, *prices, "--max_cost", "1.5", "--concurrency", "2"))
        part = read_results(tmp_path)
        spent = part.cost_usd
        main(flags(server, tmp_path, *prices, "--resume"))

    assert not part.complete
    assert "This evaluation is incomplete" in part.notes[0]
    assert "ATTENTION: This evaluation is incomplete" in caplog.text
    progress = {p.arm: (p.planned, p.done) for p in part.progress}
    assert progress["talker"] == (12, 0)
    asker = part.cell("asker", "sharded", "all", "first_reply_asks")
    assert asker.num_tasks < asker.num_planned == 6
    assert asker.missing_reasons == {"not run": 6 - asker.num_tasks}
    assert asker.worst_low < asker.mean == asker.worst_high == 1.0
    talker = part.cell("talker", "sharded", "none", "facts_elicited")
    assert (talker.mean, talker.worst_low, talker.worst_high) == (None, 0.0, 1.0)
    whole = read_results(tmp_path)
    assert whole.complete
    assert whole.notes == []
    assert whole.cost_usd > spent > 1.4


def test_a_cost_limit_that_the_judge_reaches_leaves_conversations_to_score(tmp_path):
    judge = ["--judge_model", "judge", "--metrics", "interactivity"]
    judge += ["--prices", '{"asker": [0, 0], "talker": [0, 0], "judge": [1000, 1000]}']
    with FakeServer(answer) as server:
        judge += ["--judge_base_url", server.url]
        with pytest.raises(IncompleteRunError, match="conversations are missing"):
            main(flags(server, tmp_path, *judge, "--max_cost", "0.5"))
        part = read_results(tmp_path)
        (file,) = (tmp_path / "transcripts").glob("asker--*.jsonl")
        held = len(file.read_text().splitlines())  # also those that wait for the judge
        server.requests.clear()
        main(flags(server, tmp_path, *judge, "--resume"))

    assert not part.complete
    (done,) = (progress.done for progress in part.progress if progress.arm == "asker")
    assert 0 < done <= held
    begun = [body for body in server.requests if body["model"] == "asker"]
    begun = [body for body in begun if sum(m["role"] == "user" for m in body["messages"]) == 1]
    assert len(begun) == 12 - held + (held < 12)  # a preflight, where it goes on
    results = read_results(tmp_path)
    assert results.complete
    assert results.cell("talker", "sharded", "all", "interactivity").num_values == 6


def test_an_arm_whose_server_fails_is_incomplete_and_runs_again(tmp_path):
    with FakeServer(answer) as server:
        server.reject = lambda body: after_preflight(body) if body["model"] == "talker" else None
        with pytest.raises(IncompleteRunError, match="12 of 24 conversations are missing"):
            main(flags(server, tmp_path))
        part = read_results(tmp_path)
        server.reject = None
        main(flags(server, tmp_path, "--resume"))

    assert [(p.done, p.failed) for p in part.progress] == [(12, 0), (0, 12)]
    assert part.primary_differences() == []
    assert part.cell("talker", "sharded", "none", "facts_elicited").num_missing == 6
    assert read_results(tmp_path).complete


def test_what_no_server_can_do_is_refused_before_any_arm_has_talked(tmp_path):
    with FakeServer(answer) as server:
        words = [*flags(server, tmp_path, arms=("talker",)), "--arm", "name=base"]
        with pytest.raises(ValueError, match="--no_repeat_ngram_size is for a local assistant"):
            main([*words, "--no_repeat_ngram_size", "4"])
        assert server.requests == []
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("refused", ["talker", "user", "judge"])
def test_a_server_that_refuses_ends_an_evaluation_before_work(tmp_path, refused):
    with FakeServer(answer) as server:
        words = flags(server, tmp_path, "--judge_model", "judge", "--judge_base_url", server.url)
        words += ["--metrics", "interactivity"]
        words += ["--user", f"name=llm,kind=openai,model=user,base_url={server.url}"]
        server.reject = lambda body: (401, {}) if body["model"] == refused else None
        with pytest.raises(ServerError, match=f"{server.url} refused the request .401"):
            main(words)
        asked = [(body["model"], body["max_tokens"]) for body in server.requests]
        assert asked == [(m, 16) for m in ("asker", "user", "talker", "judge")][: len(asked)]
        assert asked[-1][0] == refused
        assert not (tmp_path / "plan.json").exists()
        answered = sum(model != refused for model, _ in asked)
        used = read_usage(tmp_path).by_role()
        server.reject = None
        main(words)

    assert sum(usage.requests for usage in used.values()) == answered
    results = read_results(tmp_path)
    assert results.complete
    counted = sum(counts["requests"] for counts in results.usage.values())
    assert counted == len(server.requests) - 1, "all but the refused one"


def test_it_is_called_from_a_notebook_in_three_lines(tmp_path):
    with FakeServer(answer) as server:
        from collabllm.evaluation import evaluate

        arms = [{"name": m, "model": m, "base_url": server.url} for m in ("asker", "talker")]
        results = evaluate(
            arm=arms, tasks=write_tasks(tmp_path / "e", 8), output_dir=tmp_path / "e"
        )

    assert [d.verdict for d in results.primary_differences()] == ["worse", "better"]
    assert results == read_results(tmp_path / "e")


def test_test_tasks_are_counted_each_time_they_are_opened(tmp_path):
    log = ["--tasks_are", "test", "--test_log", str(tmp_path / "uses.jsonl")]
    with FakeServer(answer) as server:
        main(flags(server, tmp_path / "one", *log, arms=("asker",)))
        main(flags(server, tmp_path / "one", *log, "--resume", arms=()))
        first = read_results(tmp_path / "one")
        again = [*flags(server, tmp_path / "two", *log, arms=("talker",))]
        again[again.index("--tasks") + 1] = write_tasks(tmp_path / "one")
        main(again)
        second = read_results(tmp_path / "two")
        shutil.rmtree(tmp_path / "two")
        main(again)
        third = read_results(tmp_path / "two")

    assert (first.tasks_are, len(first.test_set_uses)) == ("test", 1)
    assert len(third.test_set_uses) == 3, "the same names in a new folder are another look"
    assert [use.arms for use in second.test_set_uses] == [["asker"], ["talker"]]
    assert any(note.startswith("These test tasks were opened 2 times") for note in second.notes)


def test_going_on_keeps_the_number_of_tasks_and_opening_more_is_counted(tmp_path):
    log = ["--tasks_are", "test", "--test_log", str(tmp_path / "uses.jsonl")]
    with FakeServer(answer) as server:
        main(flags(server, tmp_path / "e", *log, "--num_tasks", "2"))
        main(flags(server, tmp_path / "e", *log, "--resume", "--user", "name=x,patience=1"))
        kept = read_results(tmp_path / "e")
        main(flags(server, tmp_path / "e", *log, "--resume", "--num_tasks", "5"))
        main(flags(server, tmp_path / "e", *log, "--resume", "--num_tasks", "3"))
    grown = read_results(tmp_path / "e")

    assert (kept.num_tasks, [use.num_tasks for use in kept.test_set_uses]) == (2, [2])
    assert (grown.num_tasks, [use.num_tasks for use in grown.test_set_uses]) == (5, [2, 5])
    assert any("number of tasks was 2 and was changed to 5" in note for note in grown.notes)


def test_primary_outcomes_that_change_after_the_results_are_told(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        main(flags(server, tmp_path, "--resume", "--primary", "over_asking@all"))

    results = read_results(tmp_path)
    assert [str(outcome) for outcome in results.primary] == ["over_asking@all"]
    assert re.search("primary outcomes were .* changed to over_asking@all after", results.notes[0])


def test_choices_that_could_follow_the_results_are_told(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path))
        plan = tmp_path / "plan.json"
        content = json.loads(plan.read_text())
        content["prompt_hashes"]["user_simulator"] = "former"
        plan.write_text(json.dumps(content))
        more = ["--reference", "talker", "--user", "name=x,patience=1", "--num_rollouts", "2"]
        main(flags(server, tmp_path, "--resume", *more, "--tasks_are", "test", "--test_log",
                   str(tmp_path / "uses.jsonl")))  # fmt: skip

    told = " ".join(read_results(tmp_path).notes)
    for change in (
        "The reference was asker and was changed to talker after there were results",
        "The users were sharded and were changed to sharded, x",
        "The number of rollouts was 1 and was changed to 2",
        "The kind of the tasks was development and was changed to test",
        "The prompt user_simulator was former and was changed to ",
    ):
        assert change in told


def test_results_of_another_commit_or_version_are_told():
    before = make_plan(["base"], ["u"], [0], 6)
    versions = {**before.versions, "torch": "2.14.0", "openai": "3.0"}

    notes = list(_changes(replace(before, commit="4567def", versions=versions), before))

    assert [note.partition(" after ")[0] for note in notes] == [
        "The commit was 0123abc and was changed to 4567def",
        "The version of torch was 2.13.0 and was changed to 2.14.0",
    ]


def test_a_training_that_joins_an_arm_after_the_results_is_told(tmp_path):
    def plan(*seeds):
        arm = ArmInfo("sft", list(seeds), [f"outputs/{seed}" for seed in seeds], "default", "m")
        return replace(make_plan(["base"], ["u"], [0], 6), arms=[arm])

    (note,) = _changes(plan("run-0", "run-1", "run-2"), plan("run-0", "run-1"))

    assert note.startswith(
        "The trainings of sft were run-0, run-1 and were changed to run-0, run-1, run-2 after"
    )
    assert list(_changes(plan("run-0"), plan("run-0"))) == []


def test_ctrl_c_says_what_is_kept_and_the_usage_stays(tmp_path, monkeypatch):
    from collabllm.evaluation.scoring import Scorer

    def stop(self, record):
        raise KeyboardInterrupt

    with FakeServer(answer) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Scorer, "add", stop)
            with pytest.raises(KeyboardInterrupt, match="kept in .* resume=True"):
                main(flags(server, tmp_path))
        used = read_usage(tmp_path).by_role()["assistant"].requests
        server.requests.clear()
        main(flags(server, tmp_path, "--resume"))

    assert used > 0
    results = read_results(tmp_path)
    assert results.complete
    # Requests that Ctrl-C met under way may still have reached the server, after the count.
    assert used < results.usage["assistant"]["requests"] <= used + len(server.requests)


def test_wrong_flags_stop_before_anything_runs(tmp_path, capsys):
    with FakeServer(answer) as server:
        with pytest.raises(ValueError, match="--reference x is not an arm"):
            main(flags(server, tmp_path, "--reference", "x"))
        with pytest.raises(ValueError, match="did you mean 'facts_elicited'"):
            main(flags(server, tmp_path, "--metrics", "facts_elicted"))
        with pytest.raises(ValueError, match="--primary x@none must be METRIC@OPENING"):
            main(flags(server, tmp_path, "--primary", "x@none"))
        with pytest.raises(ValueError, match="--cluster_by topc: no row has this column"):
            main(flags(server, tmp_path, "--cluster_by", "topc"))
        with pytest.raises(ValueError, match="sharded"):
            main(flags(server, tmp_path, "--user", "sharded", "--user", "sharded"))
        with pytest.raises(ValueError, match="name stands in file names"):
            main(flags(server, tmp_path, "--user", "name=../../../x"))
        with pytest.raises(ValueError, match="needs an --arm"):
            main(flags(server, tmp_path, arms=()))
        for wrong in ("lora_path=x", "name=a,lora=x"):
            with pytest.raises(SystemExit):
                main(["--arm", wrong])
        with pytest.raises(SystemExit):
            main(["--arm", "name=a", "--num_told", "most"])
    assert server.requests == []
    assert not list(tmp_path.glob("*.json"))
    error = capsys.readouterr().err
    assert "needs a name" in error
    assert "num_told must be numbers, some or all, got 'most'" in error


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
    (tmp_path / "a2/chat_template.jinja").write_text("{{ messages[-1]['content'] }} of its own")
    loads = []
    load = models.load_base_model
    monkeypatch.setattr(
        models, "load_base_model", lambda *args, **kwargs: loads.append(1) or load(*args, **kwargs)
    )
    # Only in float32 are replies the same alone as in a batch.
    monkeypatch.setattr(models, "choose_dtype", lambda: torch.float32)
    words = ["--hf_model_path", str(base), "--temperature", "0", "--max_new_tokens", "12"]
    words += ["--num_tasks", "3", "--max_turns", "1", "--output", str(tmp_path / "e")]
    for arm in ("name=base", f"name=one,lora_path={adapters[0]}"):
        words += ["--arm", arm]
    words += ["--arm", f"name=two,lora_path={adapters[1]}", "--arm", "name=base again"]
    main([*words, "--arm", f"name=recipe,lora_path={tmp_path}/a*"])

    assert len(loads) == 1
    replies = {}
    for arm in ("base", "one", "two", "base again"):
        records = read(tmp_path / f"e/transcripts/{arm}--sharded.jsonl")
        replies[arm] = {r["task_id"]: r["messages"] for r in records}
    assert replies["base"] == replies["base again"]
    for seed, arm in (("a1", "one"), ("a2", "two")):
        records = read(tmp_path / f"e/transcripts/recipe@{seed}--sharded.jsonl")
        assert {r["task_id"]: r["messages"] for r in records} == replies[arm]
    assert read_results(tmp_path / "e").arms[-1].training_seeds == ["a1", "a2"]
    for arm, adapter in (("base", None), ("one", adapters[0]), ("two", adapters[1])):
        with LocalAssistant(
            str(base), adapter, max_new_tokens=12, do_sample=False, dtype="float32"
        ) as alone:
            for messages in replies[arm].values():
                assert messages[-1]["content"] == alone.generate(messages[:-1])
    texts = [json.dumps(replies[arm]) for arm in ("base", "one", "two")]
    assert len(set(texts)) == 3
