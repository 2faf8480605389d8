"""From scores to summaries, differences, over-asking and tables; arms and users from flags."""

import argparse
import json

import pytest

from collabllm.evaluation.arms import Arm, check_arms, check_not_trained_on, parse_arm
from collabllm.evaluation.report.aggregate import aggregate
from collabllm.evaluation.report.old_tables import to_markdown
from collabllm.evaluation.users import UserSpec, parse_user
from collabllm.tasks import demo_tasks


def score(arm, task, value, *, asks=0.0, num_told=0, user="sharded", missing=None, rollout=0):
    values = {"m": value, "first_reply_asks": asks}
    return {
        "arm": arm,
        "user": user,
        "num_told": num_told,
        "task_id": task,
        "rollout_idx": rollout,
        "termination_reason": "max_turns",
        "failed": False,
        "audit": {"repeat": task == "a"},
        "replies": [{"tokens": 5, "questions": 2, "needless": 1, "facts_told": 1}],
        "values": values,
        "missing": {"m": missing} if missing else {},
    }


SCORES = [
    *(score("base", t, v, asks=0.0) for t, v in (("a", 0.0), ("b", 0.2), ("c", 0.1))),
    *(score("sft", t, v, asks=1.0) for t, v in (("a", 0.5), ("b", 0.6), ("c", 0.4))),
    *(score(arm, f"{t}+3", 1.0, num_told=3) for arm in ("base", "sft") for t in "abc"),
]


def results_of(scores):
    arms = ["base", "sft"]
    found = aggregate(scores, arms, "base", ["m", "first_reply_asks"], seed=0)
    named = {"arms": [{"name": arm} for arm in arms], "reference": "base"}
    return {**named, "metrics": ["m", "first_reply_asks"], **found}


def test_differences_are_paired_by_task_and_corrected_over_metrics():
    results = results_of(SCORES)

    (m,) = [d for d in results["differences"] if d["metric"] == "m" and d["num_told"] == 0]
    assert m["arm"] == "sft"
    assert m["mean"] == pytest.approx(0.4)
    assert m["p_value"] == 0.25
    assert m["p_holm"] == 0.5
    asks = next(d for d in results["differences"] if d["metric"] == "first_reply_asks")
    assert (asks["test"], asks["mean"]) == ("McNemar", 1.0)


def test_over_asking_has_two_numbers_and_a_curve():
    results = results_of(SCORES)

    (sft,) = [entry for entry in results["over_asking"] if entry["arm"] == "sft"]
    assert sft["needed"]["mean"] == 1.0
    assert sft["needless"]["mean"] == 0.0
    assert [point["num_told"] for point in sft["curve"]] == [0, 3]


def test_a_missing_value_is_counted_and_not_zero():
    scores = [*SCORES, score("sft", "d", None, missing="judge is dead")]

    summary = next(
        s
        for s in results_of(scores)["summaries"]
        if (s["arm"], s["metric"], s["num_told"]) == ("sft", "m", 0)
    )

    assert summary["mean"] == pytest.approx(0.5)
    assert summary["num_missing"] == 1
    assert summary["missing_reasons"] == {"judge is dead": 1}


def test_repeats_give_a_noise_floor():
    scores = [score("base", "a", v, rollout=i) for i, v in enumerate((0.0, 1.0))]

    (summary, *_) = aggregate(scores, ["base"], "base", ["m"], 0)["summaries"]

    assert summary["noise_floor"] == pytest.approx(0.7071, abs=1e-4)
    assert (summary["num_tasks"], summary["num_values"]) == (1, 2)


def test_the_table_names_arms_intervals_and_differences():
    text = to_markdown(results_of(SCORES))

    assert "### User sharded, vague openings" in text
    assert "| base | 0.10 [" in text
    assert "| sft | m | +0.40 [" in text
    assert "p 0.250 (0.500)" in text
    assert "complete opening: needless" in text


def test_simulator_faults_are_reported_as_shares():
    (audit,) = results_of(SCORES)["audit"]

    assert audit == {"user": "sharded", "repeat": pytest.approx(1 / 6)}


def test_arms_are_read_from_flags():
    assert parse_arm("name=base") == Arm("base")
    assert parse_arm("name=a,lora_path=x/y,system_prompt=proactive") == Arm("a", "x/y", "proactive")
    assert parse_arm("name=a,system_prompt=Be brief, and kind.").system_prompt == (
        "Be brief, and kind."
    )
    assert parse_arm("name=r,model=gpt-4o,base_url=http://h/v1").base_url == "http://h/v1"
    for wrong in ("lora_path=x", "name=a,lora=x", "name=a/b", "name=r,model=m,lora_path=x"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_arm(wrong)
    assert Arm("p", system_prompt="proactive").prompt("d").startswith("You help the user")
    assert Arm("n", system_prompt="none").prompt("d") == ""
    assert Arm("d").prompt("d") == "d"


def test_arms_need_names_of_their_own_and_adapters_that_exist(tmp_path):
    with pytest.raises(ValueError, match="used twice: a"):
        check_arms([Arm("a"), Arm("a")])
    with pytest.raises(FileNotFoundError, match="--arm a: there is no adapter"):
        check_arms([Arm("a", str(tmp_path))])
    check_arms([Arm("a", "hub-user/adapter")])


def test_users_are_read_from_flags():
    assert parse_user("sharded") == UserSpec("sharded")
    assert parse_user("openai").kind == "openai"
    hasty = parse_user("name=hasty,patience=1,one_at_a_time=true")
    assert hasty == UserSpec("hasty", "sharded", {"patience": 1, "one_at_a_time": True})
    terse = parse_user("name=t,kind=openai,model=m,traits=terse+expert,num_traits=0")
    assert terse.options["traits"] == ("terse", "expert")
    for wrong in ("robot", "name=a,kind=robot", "name=a,traits=evil", "name=a,patience=soon"):
        with pytest.raises(ValueError, match=r"--user|traits"):
            parse_user(wrong)


def make_adapter(folder, **config):
    folder.mkdir()
    settings = {
        "hf_dataset_path": "demo",
        "dataset_split": "train",
        "split_by": "single_turn_metadata.kind",
        "eval_ratio": 0.2,
        **config,
    }
    (folder / "train_config.yaml").write_text(json.dumps(settings))
    return str(folder)


def test_tasks_of_the_training_are_refused(tmp_path):
    from collabllm.tasks import choose_side

    arm = Arm("sft", make_adapter(tmp_path / "sft"))
    held_out = choose_side(demo_tasks(), "eval", 0.2, "single_turn_metadata.kind")

    check_not_trained_on(arm, held_out)
    with pytest.raises(ValueError, match=r"trained on [0-9]+ of [0-9]+ tasks .*--side eval"):
        check_not_trained_on(arm, demo_tasks())


def test_the_trainings_that_an_adapter_continues_are_checked_too(tmp_path):
    sft = make_adapter(tmp_path / "sft")
    harmless = tmp_path / "other.jsonl"
    row = {"prompt": [{"role": "user", "content": "x"}], "completion": "y", "conv_id": 0}
    harmless.write_text(json.dumps({**row, "score": 1.0}) + "\n")
    dpo = make_adapter(tmp_path / "dpo", hf_dataset_path=str(harmless), lora_path=sft)

    with pytest.raises(ValueError, match="Arm dpo was trained on"):
        check_not_trained_on(Arm("dpo", dpo), demo_tasks())
