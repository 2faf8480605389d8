"""A run goes on from a checkpoint with what it was trained with, and with nothing else."""

import json
import shutil
import sys

import pytest
import yaml

from collabllm.training.dpo import DPO
from collabllm.training.grpo import GRPO
from collabllm.training.resuming import check_data
from collabllm.training.sft import SFT
from collabllm.training.start import start_run
from scripts import train_dpo, train_grpo
from scripts.train_sft import main, parse_args


@pytest.fixture
def checkpoint(sft_flags, tmp_path):
    """A checkpoint beside the settings that `sft_flags` gives."""
    folder = tmp_path / "run/checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    settings, fields = parse_args(sft_flags())
    kept = {**vars(settings), "max_steps": int(fields["max_steps"])}
    (folder.parent / "train_config.yaml").write_text(yaml.safe_dump(kept))
    return folder


def resume(flags):
    return start_run(SFT(), *parse_args(flags)).checkpoint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"learning_rate": 3e-4}, "learning_rate was 0.01 and is 0.0003 now"),
        ({"batch_size": 1}, "rows a step was 4 and is 1 now"),
        ({"per_device_train_batch_size": 1}, "rows a step was 4 and is 1 now"),
        ({"hf_dataset_path": "a/other.jsonl"}, r"hf_dataset_path was \['small.jsonl'\] and is "),
        ({"system_prompt": "Guess."}, "system_prompt was .* and is 'Guess.' now"),
        ({"first_token_weight": 10}, "first_token_weight was 1.0 and is 10.0 now"),
        ({"seed": 7}, "seed was 42 and is 7 now"),
        ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type was 'linear' and is 'cosine' now"),
    ],
)
def test_what_makes_a_run_another_one_is_refused(sft_flags, checkpoint, changes, says):
    before = (checkpoint.parent / "train_config.yaml").read_text()

    with pytest.raises(ValueError, match=f"--resume_from_checkpoint: {says}"):
        resume(sft_flags(resume_from_checkpoint="true", **changes))

    assert (checkpoint.parent / "train_config.yaml").read_text() == before


ONLINE = [
    ({"tasks": "demo_test"}, r"tasks was \[None\] and is \['demo_test'\] now"),
    ({"credit": "conversation"}, "credit was 'turn' and is 'conversation' now"),
    ({"weights": '{"facts_elicited": 2}'}, "weights was .* now"),
    ({"train_first_token": "false"}, "train_first_token was True and is False now"),
    ({"num_told": 1}, r"num_told was \[0\] and is \[1\] now"),
    ({"window": 0}, "window was 1 and is 0 now"),
    ({"user": "kind=sharded,patience=1"}, "user was 'sharded' and is .* now"),
    ({"temperature": 0.3}, "temperature was 1.0 and is 0.3 now"),
    ({"beta": 0.1}, "beta was 0.0 and is 0.1 now"),
    ({"max_completion_length": 16}, "max_completion_length was 8 and is 16 now"),
]
PREFERENCES = [
    ({"beta": 0.5}, "beta was 0.1 and is 0.5 now"),
    ({"loss_type": "ipo"}, r"loss_type was \['sigmoid'\] and is \['ipo'\] now"),
    ({"max_length": 500}, "max_length was 512 and is 500 now"),
]


@pytest.mark.parametrize(("method", "changes", "says"), [
    *((GRPO, *case) for case in ONLINE), *((DPO, *case) for case in PREFERENCES),
])  # fmt: skip
def test_what_makes_a_run_of_another_method_another_one_is_refused(
    grpo_flags, sft_flags, checkpoint, method, changes, says
):
    flags, script = (grpo_flags, train_grpo) if method is GRPO else (sft_flags, train_dpo)
    settings, fields = script.parse_args(flags())
    kept = {**vars(settings), **fields}
    kept.pop("train_first_token", None)  # of a former version
    (checkpoint.parent / "train_config.yaml").write_text(yaml.safe_dump(kept))
    again = {"resume_from_checkpoint": "true"}

    assert start_run(method(), *script.parse_args(flags(**again))).checkpoint == str(checkpoint)
    with pytest.raises(ValueError, match=f"--resume_from_checkpoint: {says}"):
        start_run(method(), *script.parse_args(flags(**again, **changes)))


def test_other_prompts_are_refused(checkpoint):
    (checkpoint.parent / "run.json").write_text(json.dumps({"data": {"prompts": "turns, 3 of 4"}}))

    with pytest.raises(ValueError, match="number of prompts was 'turns, 3 of 4' and is 'turns, 4"):
        check_data(str(checkpoint), {"prompts": "turns, 4 of 4"})


def steps_of(folder):
    log = json.loads((folder / "metrics.json").read_text())["log_history"]
    return [entry["step"] for entry in log if "loss" in entry]


@pytest.mark.parametrize("saves", ["steps", "no"])
def test_auto_is_done_only_with_a_finished_run_of_these_settings_and_steps(
    sft_flags, tmp_path, saves
):
    flags = {"resume_from_checkpoint": "auto", "load_in_4bit": "false", "save_strategy": saves}
    flags |= {"eval_ratio": 0}
    folder = tmp_path / "run"
    main(sft_flags(max_steps=2, **flags))
    written = (folder / "metrics.json").stat().st_mtime_ns

    with pytest.raises(ValueError, match="--resume_from_checkpoint: learning_rate was 0.01 and is"):
        main(sft_flags(max_steps=2, **flags, learning_rate=1e-3))
    for steps in (2, 1):
        main(sft_flags(max_steps=steps, **flags))
    assert (folder / "metrics.json").stat().st_mtime_ns == written
    if saves == "no":
        with pytest.raises(ValueError, match="run of 2 steps that is over, and no checkpoint"):
            main(sft_flags(max_steps=3, **flags))
        return
    main(sft_flags(max_steps=3, **flags))
    assert steps_of(folder) == [1, 2, 3]


def test_a_finished_run_that_goes_on_and_is_killed_is_finished_no_more(
    sft_flags, tmp_path, monkeypatch
):
    flags = {"load_in_4bit": "false", "save_strategy": "steps", "eval_ratio": 0}
    flags |= {"resume_from_checkpoint": "auto"}
    main(sft_flags(max_steps=1, **flags))
    with monkeypatch.context() as patch:
        patch.setattr("transformers.Trainer.train", lambda *a, **k: sys.exit(9))
        with pytest.raises(SystemExit):
            main(sft_flags(max_steps=2, **flags))

    main(sft_flags(max_steps=2, **flags))

    assert steps_of(tmp_path / "run") == [1, 2]


def test_more_steps_other_outputs_and_moved_files_go_on(
    sft_flags, checkpoint, small_dataset, tmp_path
):
    moved = shutil.copy(small_dataset, tmp_path / "small.jsonl")
    changes = {"max_steps": 9, "logging_steps": 2, "output_name_tag": "x", "save_steps": 3}
    changes |= {"seed": 42, "hf_dataset_path": moved}
    changes |= {"batch_size": 2, "gradient_accumulation_steps": 2}  # as many rows a step

    flags = sft_flags(resume_from_checkpoint="true", **changes)

    assert resume(flags) == str(checkpoint)
    flags = sft_flags(resume_from_checkpoint=checkpoint, output_dir=tmp_path / "new")
    assert resume(flags) == str(checkpoint)


def test_a_run_of_a_former_version_goes_on(sft_flags, checkpoint):
    file = checkpoint.parent / "train_config.yaml"
    file.write_text(yaml.safe_dump({"learning_rate": 0.01, "of_old": True}))
    check_data(str(checkpoint), {"rows": 3})
    assert resume(sft_flags(resume_from_checkpoint="auto")) == str(checkpoint)

    file.unlink()
    assert resume(sft_flags(resume_from_checkpoint="auto")) == str(checkpoint)


def test_a_file_with_other_rows_is_refused(checkpoint):
    (checkpoint.parent / "run.json").write_text(json.dumps({"data": {"rows": 3}}))

    check_data(str(checkpoint), {"rows": 3, "training rows": 2, "turns": "merged"})
    with pytest.raises(ValueError, match="the number of rows was 3 and is 4 now"):
        check_data(str(checkpoint), {"rows": 4})
