"""scripts/ablate.py: every arm with every seed from the SFT of its seed, then one evaluation."""

import json

import pytest
import yaml

from collabllm.ablation import AblationSettings, ablate

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
        path.stem: yaml.safe_load(path.read_text()) for path in (out / "configs").glob("*.yaml")
    }
    assert set(configs) == {"start-seed3", "near-seed3", "far-seed3", "held_out"}
    assert configs["near-seed3"]["lora_path"] == str(out / "start-seed3")
    assert [configs[f"{name}-seed3"]["window"] for name in ("near", "far")] == [0, 1]
    assert configs["far-seed3"]["max_generated_tokens"] == 1000
    trained = json.loads((out / "far-seed3/metrics.json").read_text())
    assert [entry["generated_tokens"] for entry in trained["log_history"] if "reward" in entry]
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*-seed3/*.safetensors")}

    ablate(**ablation)  # is complete: nothing is trained anew

    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    with pytest.raises(ValueError, match=r"far-seed3 was trained with other settings \(window\)"):
        ablate(**{**ablation, "arms": {"near": {"window": 0}, "far": {"window": 2}}})


def test_all_files_are_checked_before_anything_is_trained(ablation, tmp_path, capsys):
    (tmp_path / "held_out.yaml").write_text("num_taks: 3\n")

    with pytest.raises(SystemExit):
        ablate(**ablation)

    assert "did you mean num_tasks" in capsys.readouterr().err.replace("--", "")
    assert not list((tmp_path / "out").glob("*-seed3"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"one": {}}}, "at least two ways"),
        ({"arms": {"a/b": {}, "c": {}}}, "got 'a/b'"),
        ({"arms": {"start": {}, "c": {}}}, "'start' is taken"),
        ({"arms": {"a": 1, "c": {}}}, "a must map flags to values, got 1"),
        ({"seeds": [1, 1]}, r"different numbers, at least one; got \[1, 1\]"),
        ({"seeds": []}, "at least one"),
        ({"evaluations": ["a/e.yaml", "b/e.yaml"]}, r"different file names, got \['e', 'e'\]"),
        ({"reference": "d"}, "must be one of a, b, got d"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AblationSettings(**{"arms": {"a": {}, "b": {}}, **changes})
