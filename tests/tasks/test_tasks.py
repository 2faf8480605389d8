"""Which tasks are on which side, and openings that tell a part of the facts."""

import json
from dataclasses import replace

import pytest

from collabllm.data import demo_generator
from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.simulation import RuleBasedUser
from collabllm.tasks import (
    Fact,
    Opening,
    Task,
    choose_side,
    count_partly_told,
    demo_tasks,
    load_tasks,
    open_with,
)

KIND = "single_turn_metadata.kind"


def test_the_demo_tasks_split_as_the_demo_training_does():
    sides = multiturn_dataset_to_sft(load_multiturn_dataset("demo"), 0.2, split_by=KIND)
    trained = {row["kind"] for row in sides["train"]["single_turn_metadata"]}

    train = {t.metadata["kind"] for t in choose_side(demo_tasks(), "train", 0.2, KIND)}
    held_out = {t.metadata["kind"] for t in choose_side(demo_tasks(), "eval", 0.2, KIND)}

    assert train == trained
    assert 0.1 < len(held_out) / len(train | held_out) < 0.3
    assert train.isdisjoint(held_out)


def test_the_tasks_of_a_dataset_split_by_goal_as_training_does(tmp_path):
    dataset = load_multiturn_dataset("demo")
    sides = multiturn_dataset_to_sft(dataset, 0.3)

    path = str(tmp_path / "demo.jsonl")
    demo_generator.main([path])
    held_out = choose_side(load_tasks(path), "eval", 0.3, "single_turn_prompt")

    assert {t.single_turn_prompt for t in held_out} == set(sides["eval"]["single_turn_prompt"])
    with pytest.raises(ValueError, match="None of 2 tasks is on the eval side"):
        choose_side(demo_tasks()[:2], "eval", 0.0, KIND)


def test_openings_tell_as_many_facts_as_asked_for():
    task = next(task for task in demo_tasks() if len(task.facts) == 3)
    user = RuleBasedUser.from_task(task)

    told = [
        len(user.facts_told([{"role": "user", "content": open_with(task, n).opening}]))
        for n in (0, 1, 2, 3, 9)
    ]

    assert told == [0, 1, 2, 3, 3]
    assert open_with(task, 0) is task
    assert open_with(task, 9).task_id == f"{task.task_id}+3"


def test_written_openings_are_taken_before_composed_ones():
    facts = (Fact("who", "Ann", value="Ann"), Fact("when", "on Monday", value="Monday"))
    task = Task("t", "goal", opening="a card", facts=facts)
    written = replace(task, told_openings=(Opening("a card for Ann", ("who",)),))

    assert open_with(written, 1).opening == "a card for Ann"
    nameless = Task("t", "goal", facts=(Fact("who", "For Ann"),))
    assert open_with(nameless, 1).opening == "I need help with something. For Ann"
    assert open_with(task, 1).opening in ("a card. Ann", "a card. on Monday")
    assert open_with(written, 2).opening.startswith("a card. ")


def test_a_partial_opening_tells_what_was_written_or_else_half():
    facts = tuple(Fact(name, name, value=name) for name in ("Ann", "Monday", "cake"))
    task = Task("t", "goal", opening="a card", facts=facts)
    written = Opening("a card for Ann", ("Ann",))
    complete = Opening("a card for Ann on Monday with cake", ("Ann", "Monday", "cake"))

    assert count_partly_told(replace(task, told_openings=(complete, written))) == 1
    assert count_partly_told(task) == 2
    assert count_partly_told(replace(task, facts=())) == 0


def test_goals_that_share_an_id_are_refused_with_their_row(tmp_path):
    path = tmp_path / "tasks.jsonl"
    rows = [{"task_id": "a", "single_turn_prompt": f"goal {idx}"} for idx in (1, 1, 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    with pytest.raises(ValueError, match="row 3: task_id 'a' is that of an earlier row"):
        load_tasks(path)


def test_rows_with_one_goal_are_one_task_unless_their_ids_differ(tmp_path):
    path = tmp_path / "tasks.jsonl"
    rows = [{"single_turn_prompt": "goal", **more} for more in ({}, {}, {"task_id": "a"})]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert [task.task_id == "a" for task in load_tasks(path)] == [False, True]


def test_a_fact_that_an_opening_names_twice_is_told_once(tmp_path):
    path = tmp_path / "tasks.jsonl"
    facts = [{"name": name, "answer": f"It is {name}."} for name in ("red", "big")]
    told = [{"text": "It is red.", "tells": ["red", "red"]}]
    row = {"single_turn_prompt": "goal", "facts": facts, "told_openings": told}
    path.write_text(json.dumps(row) + "\n")

    (task,) = load_tasks(path)

    assert task.told_openings == (Opening("It is red.", ("red",)),)
    assert open_with(task, 1).opening == "It is red."
    assert open_with(task, 2).opening != "It is red."


def test_a_row_with_the_goal_of_another_but_other_facts_is_counted(tmp_path, caplog):
    path = tmp_path / "tasks.jsonl"
    facts = [{"name": "who", "answer": "Ann"}]
    rows = [
        {"single_turn_prompt": "goal", "facts": facts},
        {"single_turn_prompt": "goal", "facts": facts},
        {"single_turn_prompt": "goal", "facts": []},
        {"single_turn_prompt": "goal", "facts": facts, "single_turn_completion": "a card"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    (task,) = load_tasks(path)

    assert [fact.name for fact in task.facts] == ["who"]
    assert "2 rows have the goal of an earlier row, but other facts" in caplog.text


def test_an_opening_that_tells_other_facts_than_it_says_is_named(tmp_path, caplog):
    path = tmp_path / "tasks.jsonl"
    facts = [
        {"name": "who", "answer": "for Ann", "value": "Ann"},
        {"name": "when", "answer": "on Monday", "value": "Monday"},
    ]
    openings = [
        {"text": "a card for Ann", "tells": ["who"]},
        {"text": "a card for her", "tells": ["who"]},
        {"text": "a card for Ann on Monday", "tells": ["who"]},
    ]
    row = {"task_id": "card", "single_turn_prompt": "g", "facts": facts, "told_openings": openings}
    path.write_text(json.dumps(row) + "\n")

    load_tasks(path)

    assert "2 openings do not tell the facts that their 'tells' says" in caplog.text
    assert "task 'card': 'who'; task 'card': 'when'." in caplog.text
