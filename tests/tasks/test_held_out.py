"""Tasks that a training run held out, by its own configuration."""

import json
from dataclasses import replace

import pytest
import yaml

from collabllm.data_processing.splitting import is_eval_task
from collabllm.tasks import demo_tasks, load_tasks
from collabllm.tasks.held_out import choose_held_out, trained_keys
from collabllm.tasks.settings import TaskSettings


def write_run(folder, **config):
    folder.mkdir()
    config = {"hf_dataset_path": "demo", "split_by": "single_turn_metadata.kind", **config}
    (folder / "train_config.yaml").write_text(yaml.safe_dump({"eval_ratio": 0.2, **config}))
    return folder


def test_the_split_comes_from_the_run(tmp_path):
    run = write_run(tmp_path / "run")
    by_flags = TaskSettings(side="eval", eval_ratio=0.2, split_by="single_turn_metadata.kind")

    tasks = TaskSettings(held_out_of=str(run)).load_tasks()

    assert tasks == by_flags.load_tasks()
    assert 0 < len(tasks) < len(demo_tasks())
    assert TaskSettings(held_out_of=str(run), num_tasks=2).load_tasks() == tasks[:2]


def test_a_column_that_no_task_has_is_an_error():
    with pytest.raises(ValueError, match="--split_by topic: no row has this column; there are"):
        TaskSettings(side="eval", split_by="topic").load_tasks()


def test_a_run_on_several_datasets_names_their_conversations_as_training_did(tmp_path):
    row = {"prompt": [{"role": "user", "content": "hi"}], "completion": "what?", "score": 1.0}
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        file.write_text(json.dumps({**row, "conv_id": "same"}) + "\n")
    paths = [str(file) for file in files]
    config = {"hf_dataset_path": paths, "split_by": "conv_id", "eval_ratio": 0.0}

    assert trained_keys(config) == {"conv_id:0/same", "conv_id:1/same"}
    assert trained_keys({**config, "hf_dataset_path": paths[:1]}) == {"conv_id:same"}


def test_online_training_on_tasks_of_its_own_saw_those(tmp_path):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps({"single_turn_prompt": "Bake bread."}) + "\n")
    config = {"hf_dataset_path": "demo", "tasks": str(tasks), "split_by": "single_turn_prompt"}
    trained = {"single_turn_prompt:Bake bread."}

    assert trained_keys({**config, "eval_ratio": 0.0}) == trained
    turns = trained_keys({**config, "eval_ratio": 0.0, "prompts": "turns"})
    assert turns
    assert not turns & trained


@pytest.mark.parametrize("as_paths", [str, lambda path: [str(path)]])  # older runs have a text
def test_what_a_later_training_saw_is_left_out_too(tmp_path, as_paths):
    sft = write_run(tmp_path / "sft")
    held_out = choose_held_out(demo_tasks(), sft)
    goals = [task.single_turn_prompt for task in held_out]
    trained = next(g for g in goals if not is_eval_task(f"single_turn_prompt:{g}", 0.2))
    row = {"prompt": [{"role": "user", "content": "hi"}], "completion": "what?", "score": 1.0}
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({**row, "conv_id": "a", "single_turn_prompt": trained}) + "\n")
    dpo = write_run(
        tmp_path / "dpo",
        lora_path=str(sft),
        hf_dataset_path=as_paths(data),
        split_by="single_turn_prompt",
    )

    left = choose_held_out(demo_tasks(), dpo)

    assert [task.single_turn_prompt for task in left] == [g for g in goals if g != trained]


def test_a_folder_without_a_training_and_two_splits_at_once_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no train_config.yaml; give the folder of a"):
        choose_held_out(demo_tasks(), tmp_path)
    with pytest.raises(ValueError, match="leave --side train out"):
        TaskSettings(held_out_of=str(tmp_path), side="train")
    run = write_run(tmp_path / "run", eval_ratio=0.0)
    with pytest.raises(ValueError, match="none of .* tasks is held out"):
        choose_held_out(demo_tasks(), run)


def write_split(tmp_path, with_kind):
    """A run on 40 goals, split by kind, and the same goals as tasks."""
    row = {"prompt": [{"role": "user", "content": "hi"}], "completion": "what?", "score": 1.0}
    columns = [
        {
            "single_turn_prompt": f"goal {idx}",
            "single_turn_metadata": {"kind": f"kind {idx % 10}"},
        }
        for idx in range(40)
    ]
    data, tasks = tmp_path / "data.jsonl", tmp_path / "tasks.jsonl"
    data.write_text(
        "".join(json.dumps({**row, **c, "conv_id": idx}) + "\n" for idx, c in enumerate(columns))
    )
    kept = (
        columns if with_kind else [{"single_turn_prompt": c["single_turn_prompt"]} for c in columns]
    )
    tasks.write_text("".join(json.dumps(task) + "\n" for task in kept))
    run = write_run(tmp_path / "run", hf_dataset_path=str(data), eval_ratio=0.5)
    return load_tasks(tasks), run


def test_tasks_without_the_column_that_a_run_was_split_by_are_refused(tmp_path):
    tasks, run = write_split(tmp_path, with_kind=False)

    with pytest.raises(ValueError, match=r"--held_out_of .*run, which was split by single_turn_me"):
        choose_held_out(tasks, run)


def test_a_goal_that_stands_on_both_sides_of_a_split_is_no_held_out_one(tmp_path):
    tasks, run = write_split(tmp_path, with_kind=True)
    held_out = choose_held_out(tasks, run)
    assert 0 < len(held_out) < 40
    trained = [task for task in tasks if task not in held_out]
    moved = [replace(task, metadata=held_out[0].metadata) for task in trained]

    assert choose_held_out([*held_out, *moved], run) == held_out


def test_a_run_on_rows_without_goals_holds_out_by_the_tasks_own(tmp_path):
    row = {"prompt": [{"role": "user", "content": "hi"}], "completion": "what?", "score": 1.0}
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({**row, "conv_id": 0}) + "\n")
    run = write_run(tmp_path / "run", hf_dataset_path=str(data), split_by="single_turn_prompt")

    assert 0 < len(choose_held_out(demo_tasks(), run)) < len(demo_tasks())
