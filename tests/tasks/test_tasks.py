"""Which tasks are on which side, and openings that tell a part of the facts."""

import pytest

from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.simulation import ShardedUserModel
from collabllm.tasks import choose_side, demo_tasks, load_tasks, open_with

DOMAIN = "single_turn_metadata.domain"


def test_the_demo_tasks_split_as_the_demo_training_does():
    sides = multiturn_dataset_to_sft(load_multiturn_dataset("demo"), 0.2, split_by=DOMAIN)
    trained = {row["domain"] for row in sides["train"]["single_turn_metadata"]}

    train = {t.metadata["domain"] for t in choose_side(demo_tasks(), "train", 0.2, DOMAIN)}
    held_out = {t.metadata["domain"] for t in choose_side(demo_tasks(), "eval", 0.2, DOMAIN)}

    assert train == trained
    assert len(held_out) == 7
    assert train.isdisjoint(held_out)


def test_the_tasks_of_a_dataset_split_by_goal_as_training_does():
    dataset = load_multiturn_dataset("demo")
    sides = multiturn_dataset_to_sft(dataset, 0.3)

    path = "collabllm/data/demo_multiturn.jsonl"
    held_out = choose_side(load_tasks(path), "eval", 0.3, "single_turn_prompt")

    assert {t.single_turn_prompt for t in held_out} == set(sides["eval"]["single_turn_prompt"])
    with pytest.raises(ValueError, match="None of 2 tasks is on the eval side"):
        choose_side(demo_tasks()[:2], "eval", 0.0, DOMAIN)


def test_openings_tell_as_many_facts_as_asked_for():
    task = demo_tasks()[0]
    user = ShardedUserModel.from_task(task)

    told = [
        len(user.facts_told([{"role": "user", "content": open_with(task, n).opening}]))
        for n in (0, 1, 2, 3, 9)
    ]

    assert told == [0, 1, 2, 3, 3]
    assert open_with(task, 0) is task
    assert open_with(task, 9).task_id == f"{task.task_id}+3"
