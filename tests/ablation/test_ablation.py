"""scripts/ablate.py: every arm with every seed from the SFT of its seed, then one evaluation."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from rich.console import Console
from transformers import AutoModelForCausalLM

from collabllm.ablation import AblationSettings, ablate
from collabllm.ablation.run import Training, _describe, plan
from collabllm.training.checkpoints import own_folder

SMALL = {
    "hf_dataset_path": "demo",
    "split_by": "single_turn_metadata.kind",
    "eval_ratio": 0.2,
    "max_steps": 1,
    "batch_size": 2,
    "num_sample_replies": 0,
    "load_in_4bit": False,
    "report_to": "none",
    "push_to_hub": "false",
    "save_strategy": "no",
    "lora_r": 4,
}
ONLINE = {
    "num_generations": 2,
    "max_completion_length": 8,
    "num_samples": 1,
    "max_turns": 1,
    "max_eval_tasks": 1,
    "sample_steps": 0,
    "weights": {"repetition": -1.0, "facts_elicited": 1.0},
    "lora_r": None,
}


@pytest.fixture
def ablation(brief_model, tmp_path):
    """Settings of a small ablation, with its config files."""
    evaluation = {"tasks": "demo_development", "num_tasks": 4, "max_turns": 1, "max_new_tokens": 4}
    online = {k: v for k, v in {**SMALL, **ONLINE}.items() if v is not None}
    files = {
        "sft": {**SMALL, "max_eval_pairs": 2},
        "grpo": online,
        "held_out": evaluation,
    }
    for name, config in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return {
        "train": str(tmp_path / "grpo.yaml"),
        "start": str(tmp_path / "sft.yaml"),
        "evaluations": [str(tmp_path / "held_out.yaml")],
        "arms": {"near": {"window": 0}, "far": {"window": 1}},
        "flags": {"max_generated_tokens": 1000},
        "hf_model_path": str(brief_model),
        "seeds": [3],
        "output_dir": str(tmp_path / "out"),
    }


def test_arms_go_on_from_the_same_start_and_are_evaluated_together(ablation, tmp_path, capsys):
    (results,) = ablate(**ablation)

    out = tmp_path / "out"
    assert [arm.name for arm in results.arms] == ["near", "far", "start"]
    assert "generated tokens" in capsys.readouterr().out
    configs = {
        path.stem.rpartition("-")[0]: yaml.safe_load(path.read_text())
        for path in (out / "configs").glob("*.yaml")
    }
    assert set(configs) == {"start-seed3", "near-seed3", "far-seed3", "held_out"}
    (start,) = out.glob("start-seed3-*")
    assert configs["near-seed3"]["lora_path"] == str(start)
    assert configs["near-seed3"]["output_name_tag"].startswith("near-seed3-")
    assert [configs[f"{name}-seed3"]["window"] for name in ("near", "far")] == [0, 1]
    assert configs["far-seed3"]["max_generated_tokens"] == 1000
    (far,) = out.glob("far-seed3-*/metrics.json")
    trained = json.loads(far.read_text())
    assert [entry["generated_tokens"] for entry in trained["log_history"] if "reward" in entry]
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*-seed3-*/*.safetensors")}

    again = ablate(**{**ablation, "flags": {"max-generated-tokens": 1000}, "reference": "far"})

    assert len(stamps) == 3  # is complete: nothing is trained or said anew
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.safetensors")} == stamps
    assert [found.reference for found in again] == ["far"]
    assert len(list(out.glob("held_out-*"))) == 1


def folders(settings):
    """Return the folders of the trainings and evaluations that settings lead to."""
    trainings, evaluations = plan(AblationSettings(**settings))
    named = {f"{run.arm}{run.seed}": run.folder.name for run in trainings}
    return named, Path(evaluations[0].output_dir).name


def test_what_settings_change_has_another_folder_and_nothing_else_has(ablation, tmp_path):
    before, evaluated = folders(ablation)

    arms = {**ablation["arms"], "far": {"window": 2}}
    assert changed(before, folders({**ablation, "arms": arms})[0]) == {"far3"}
    more, evaluated_more = folders({**ablation, "seeds": [3, 4]})
    assert changed(before, {name: more[name] for name in before}) == set()
    assert set(more) == {*before, "near4", "far4", "start4"}
    assert evaluated_more != evaluated
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({**SMALL, "max_steps": 2}))
    assert changed(before, folders(ablation)[0]) == set(before)  # arms go on from the start


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


@pytest.fixture
def on_files(ablation, brief_model, tmp_path):
    """An ablation of SFT on a file of rows, from an adapter, evaluated on a file of tasks."""
    write_rows(tmp_path / "rows.jsonl", "yes")
    write_tasks(tmp_path / "tasks.jsonl", "Bake rye bread.")
    write_adapter(tmp_path / "adapter", brief_model)
    sft = {**SMALL, "hf_dataset_path": str(tmp_path / "rows.jsonl"), "split_by": "conv_id"}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(sft))
    held_out = {"tasks": str(tmp_path / "tasks.jsonl"), "metrics": ["repetition"]}
    (tmp_path / "held_out.yaml").write_text(yaml.safe_dump(held_out))
    arms = {"fresh": {}, "further": {"lora_path": str(tmp_path / "adapter"), "lora_r": None}}
    own = {"train": str(tmp_path / "sft.yaml"), "method": "sft", "arms": arms, "flags": {}}
    return {**ablation, **own, "start": None}


def write_rows(file, reply):
    rows = [
        {"conv_id": n, "prompt": [{"role": "user", "content": f"{n}?"}], "completion": reply}
        for n in range(30)
    ]
    file.write_text("".join(json.dumps({**row, "score": 1.0}) + "\n" for row in rows))


def write_tasks(file, goal):
    task = {"task_id": "bread", "single_turn_prompt": goal, "single_turn_completion": "A loaf."}
    file.write_text(json.dumps(task) + "\n")


def write_adapter(folder, model, value=0.5):
    base = AutoModelForCausalLM.from_pretrained(model)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, value)
    adapted.save_pretrained(folder)


def test_edited_files_have_other_folders_and_the_same_files_have_the_same(
    on_files, brief_model, tmp_path
):
    before, evaluated = folders(on_files)
    assert folders(on_files) == (before, evaluated)

    write_tasks(tmp_path / "tasks.jsonl", "Bake white bread.")
    same, evaluated_anew = folders(on_files)
    assert changed(before, same) == set()
    assert evaluated_anew != evaluated

    write_adapter(tmp_path / "adapter", brief_model, value=0.25)
    other_start, _ = folders(on_files)
    assert changed(before, other_start) == {"further3"}

    write_rows(tmp_path / "rows.jsonl", "no")
    assert changed(other_start, folders(on_files)[0]) == {"fresh3", "further3"}


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        ("held_out", {"metrics": ["blue"]}, r"no metric or extractor 'blue'; did you mean 'bleu'"),
        ("held_out", {"primary": ["repetition@none"]}, r"--primary repetition@none must be METRIC"),
        ("held_out", {"metrics": ["interactivity"]}, "needs a judge: give --judge_model"),
        ("further", {"hf_dataset_path": "/nowhere/gone.jsonl"}, r"gone\.jsonl: there is no"),
        ("further", {"split_by": "typo"}, "--split_by typo: no row has this column"),
        ("further", {"score_column": "scor"}, "'scor' must be a finite number"),
        ("further", {"lora_path": "/nowhere/adapter"}, "/nowhere/adapter"),
    ],
)
def test_what_can_only_fail_ends_it_before_anything_is_trained(
    on_files, tmp_path, place, changes, message
):
    if place == "held_out":
        path = tmp_path / "held_out.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    else:
        on_files["arms"][place] |= changes

    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ablate(**on_files)

    assert not list((tmp_path / "out").glob("*-seed3-*"))


def test_tasks_of_a_run_that_is_not_there_yet_may_be_held_out(on_files, tmp_path):
    path = tmp_path / "held_out.yaml"
    config = {**yaml.safe_load(path.read_text()), "held_out_of": str(tmp_path / "later")}
    path.write_text(yaml.safe_dump(config))

    _, (evaluation,) = plan(AblationSettings(**on_files))

    assert evaluation.held_out_of == str(tmp_path / "later")


@pytest.mark.parametrize(
    ("found", "minutes"),
    [
        ({"train": {"train_runtime": 90.0}, "resumed_from": None}, "1.5"),
        ({"train": {"train_runtime": 90.0}, "resumed_from": "checkpoint-1"}, "-"),
        ({"train": {}, "resumed_from": "checkpoint-2"}, "-"),
        ({"train": {}}, "-"),
    ],
)
def test_minutes_are_told_where_all_of_them_are_known(tmp_path, capsys, found, minutes):
    metrics = {"log_history": [{"step": 7}], **found}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))

    Console(width=100).print(_describe([Training("a", 0, tmp_path, None, None, {}, False)]))

    (row,) = [line for line in capsys.readouterr().out.splitlines() if " a " in line]
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == ["a", "0", "7", "-", minutes]


def test_all_files_are_checked_before_anything_is_trained(ablation, tmp_path, capsys):
    (tmp_path / "held_out.yaml").write_text("num_taks: 3\n")

    with pytest.raises(SystemExit):
        ablate(**ablation)

    assert "did you mean num_tasks" in capsys.readouterr().err.replace("--", "")
    assert not list((tmp_path / "out").glob("*-seed3"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flags": {"num_generations": 3}}, "num_generations"),
        ({"flags": {"weights": {"politeness": 1.0}}}, "politeness"),
        ({"flags": {"max_steps": "many"}}, "max_steps"),
    ],
)
def test_flags_that_do_not_fit_end_it_before_anything_is_trained(
    ablation, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        ablate(**{**ablation, **changes})

    assert not list((tmp_path / "out").glob("*-seed3-*"))


@pytest.mark.parametrize("evaluations", [True, False])
def test_tasks_that_are_not_there_end_it_before_anything_is_trained(
    ablation, tmp_path, evaluations
):
    ablation["arms"]["far"] = {"tasks": str(tmp_path / "gone.jsonl")}
    if not evaluations:
        ablation["evaluations"] = []

    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl: there is no such file"):
        ablate(**ablation)

    assert not list((tmp_path / "out").glob("*-seed3-*"))


@pytest.mark.parametrize("arm", ["start", "near"])
def test_tasks_that_an_arm_would_be_trained_on_are_refused_before_that(ablation, tmp_path, arm):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"single_turn_prompt": "Bake bread."}) + "\n")
    if arm == "start":
        evaluation = {"tasks": "demo_train", "num_tasks": 2}
    else:
        evaluation = {"tasks": str(own), "tasks_are": "development", "metrics": "repetition"}
        ablation["flags"] = {"tasks": str(own), "split_by": "single_turn_prompt", "eval_ratio": 0.0}
    (tmp_path / "held_out.yaml").write_text(yaml.safe_dump(evaluation))

    with pytest.raises(ValueError, match=rf"Arm {arm} was trained on"):
        ablate(**ablation)

    assert not list((tmp_path / "out").glob("*-seed3-*"))


def test_one_ablation_at_a_time_writes_a_folder(ablation, tmp_path):
    with (
        own_folder(tmp_path / "out"),
        pytest.raises(FileExistsError, match="another training is writing"),
    ):
        ablate(**ablation)


def test_files_that_name_several_models_are_refused(ablation):
    with pytest.raises(ValueError, match="name several models"):
        ablate(**{**ablation, "hf_model_path": None, "flags": {}, "train": write_other(ablation)})


def write_other(ablation):
    """Write the training's file with a model of its own."""
    file = Path(ablation["train"])
    config = {**yaml.safe_load(file.read_text()), "hf_model_path": ablation["hf_model_path"]}
    file.write_text(yaml.safe_dump(config))
    return str(file)


def test_yaml_may_say_less_than_python():
    settings = AblationSettings(arms={1: None, "b": {}}, seeds=3, evaluations="a.yaml")

    assert settings.arms == {"1": {}, "b": {}}
    assert (settings.seeds, settings.evaluations) == ([3], ["a.yaml"])
    at_home = AblationSettings(arms={"a": {}, "b": {}}, output_dir="~/x")
    assert at_home.output_dir == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"one": {}}}, "at least two ways"),
        ({"arms": {"a/b": {}, "c": {}}}, "got 'a/b'"),
        ({"arms": {"start": {}, "c": {}}}, "'start' is taken"),
        ({"arms": {"a": 1, "c": {}}}, "a must map flags to values, got 1"),
        ({"seeds": [1, 1]}, r"different numbers, at least one; got \[1, 1\]"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [0.5]}, "seeds must be whole numbers"),
        ({"arms": {True: {}, False: {}}}, "YAML reads on, off"),
        ({"flags": {"output-dir": "x"}}, "flags must not have output_dir"),
        ({"arms": {"a": {"seed": 1}, "b": {}}}, "arms: a must not have seed"),
        ({"evaluations": ["a/e.yaml", "b/e.yaml"]}, r"different file names, got \['e', 'e'\]"),
        ({"reference": "d"}, "must be one of a, b, got d"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AblationSettings(**{"arms": {"a": {}, "b": {}}, **changes})
