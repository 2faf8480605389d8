"""A run goes on from a checkpoint with what it was trained with, and with nothing else."""

import json
import shutil

import pytest
import yaml

from collabllm.training.resuming import check_data
from collabllm.training.sft import SFT
from collabllm.training.start import start_run
from scripts.train_sft import parse_args


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
