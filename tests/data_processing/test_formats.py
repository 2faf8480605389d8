"""Rows of other formats: how they are read, and bad rows that are skipped and counted."""

import json
import math

import numpy as np
import pytest
from datasets import Dataset

from collabllm.data_processing import (
    load_multiturn_dataset,
    multiturn_dataset_to_dpo,
    multiturn_dataset_to_sft,
)
from collabllm.data_processing.formats import to_goal
from collabllm.data_processing.splitting import task_key
from collabllm.evaluation.report.view import view
from collabllm.tasks import load_tasks

USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
MORE, LAST = {"role": "user", "content": "more"}, {"role": "assistant", "content": "bye"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def replies(messages):
    return [(m["content"], m["weight"]) for m in messages if m["role"] == "assistant"]


def test_openai_chats_keep_every_reply_that_is_not_marked_with_weight_0(tmp_path, caplog):
    rows = [
        {"messages": [USER, REPLY, MORE, LAST]},
        {"messages": [USER, {**REPLY, "weight": 0}, MORE, {**LAST, "weight": 1}]},
    ]

    with caplog.at_level("INFO"):
        table = load_multiturn_dataset(write(tmp_path / "chats.jsonl", rows))
    kept = multiturn_dataset_to_sft(table, system_prompt=None)["train"]["messages"]

    assert [replies(m) for m in kept] == [[("hello", 1), ("bye", 1)], [("hello", 0), ("bye", 1)]]
    assert "chats.jsonl: read as OpenAI chat rows: every reply without weight 0" in caplog.text


def test_sharegpt_speakers_are_roles(tmp_path):
    turns = [("system", "be brief"), ("human", "hi"), ("gpt", "hello")]
    row = {"id": "x", "conversations": [{"from": who, "value": text} for who, text in turns]}

    (read,) = load_multiturn_dataset(write(tmp_path / "s.jsonl", [row]))

    assert read["prompt"] == [{"role": "system", "content": "be brief"}, USER]
    assert (read["completion"], read["score"], read["id"]) == ("hello", 1.0, "x")


def test_a_system_prompt_is_found_in_a_column_and_under_openais_new_name(tmp_path):
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    column = {"system": "be brief", "conversations": talk}
    both = {"from": "system", "value": "be brief"}
    message = {"messages": [{"role": "developer", "content": "be brief"}, USER, REPLY]}

    for row in (column, message, {**column, "conversations": [both, *talk]}):
        (read,) = load_multiturn_dataset(write(tmp_path / "s.jsonl", [row]))
        assert read["prompt"] == [{"role": "system", "content": "be brief"}, USER]
    with pytest.raises(ValueError, match="row 1: .*no reply"):
        load_multiturn_dataset(write(tmp_path / "s.jsonl", [{**column, "conversations": []}]))


@pytest.mark.parametrize("kind", [tuple, np.array])
def test_messages_may_be_any_sequence(kind):
    row = {"messages": kind([USER, REPLY])}

    assert to_goal(row) == to_goal({"messages": [USER, REPLY]})


def test_sharegpt_rows_may_call_speakers_roles(tmp_path):
    (read,) = load_multiturn_dataset(
        write(tmp_path / "s.jsonl", [{"conversations": [USER, REPLY]}])
    )

    assert (read["prompt"], read["completion"]) == ([USER], "hello")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [{"role": "user"}]}, "it lacks 'content'"),
        ({"messages": 5}, "messages must be a list of messages, got 5"),
        ({"messages": json.dumps([USER, REPLY])}, "messages must be a list of messages, got '"),
        ({"conversations": [{"from": "human", "text": "hi"}]}, "it lacks 'value'"),
        ({"conversations": ["hi", "hello"]}, "conversations must be a list of messages, got"),
    ],
)
def test_what_a_row_of_a_format_lacks_is_said(tmp_path, row, why):
    path = write(tmp_path / "s.jsonl", [row])

    for load in (load_multiturn_dataset, load_tasks):
        with pytest.raises(ValueError, match=rf"row 1: is no row of .*\({why}"):
            load(path)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "chosen": "hello", "rejected": "no"},
        {"prompt": [USER], "chosen": [REPLY], "rejected": [{**REPLY, "content": "no"}]},
        {"prompt": [USER], "chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "no"}]},
        {"prompt": "hi", "chosen": "hello", "rejected": "no", "messages": [USER, REPLY]},
    ],
)
def test_preferences_are_a_pair_of_one_turn(tmp_path, row):
    table = load_multiturn_dataset(write(tmp_path / "p.jsonl", [row]))
    (pair,) = multiturn_dataset_to_dpo(table, system_prompt=None)["train"]

    assert (pair["chosen"], pair["rejected"][0]["content"]) == ([REPLY], "no")
    assert (pair["chosen_score"], pair["rejected_score"]) == (1.0, 0.0)


def test_a_saved_table_of_another_format_loads_too(tmp_path):
    Dataset.from_list([{"messages": [USER, REPLY]}]).save_to_disk(tmp_path / "saved")

    assert load_multiturn_dataset(tmp_path / "saved")["completion"] == ["hello"]


def test_bad_rows_stop_the_run_or_are_skipped_and_counted(tmp_path, make_row, caplog):
    rows = [make_row(), make_row(score=None), make_row(completion=" "), make_row(conv_id=2)]
    path = write(tmp_path / "rows.jsonl", rows)

    with pytest.raises(ValueError, match=r"rows.jsonl row 2: missing 'score'.*--skip_bad_rows"):
        load_multiturn_dataset(path)
    table = load_multiturn_dataset(path, skip_bad_rows=True)

    assert len(table) == 2
    assert "rows.jsonl: 2 bad rows are skipped: row 2: missing 'score'" in caplog.text
    assert caplog.text.count("bad rows are skipped") == 1


def test_every_file_and_every_load_reports_its_skipped_rows(tmp_path, make_row, caplog):
    paths = [tmp_path / name / "train.jsonl" for name in ("first", "second")]
    for path in paths:
        path.parent.mkdir()
        write(path, [make_row(), make_row(completion="")])

    for path in (*paths, paths[0]):
        load_multiturn_dataset(path, skip_bad_rows=True)

    reports = [text for text in caplog.messages if "1 bad rows are skipped" in text]
    assert [text.partition(":")[0] for text in reports] == [*map(str, paths), str(paths[0])]


def test_rows_that_cannot_be_read_are_skipped_and_the_others_stay(tmp_path, caplog):
    replies = [{"completion": "hello", "score": 1}, "hello"]
    turns = [{"prompt": [USER], "responses": replies}, {"prompt": [USER]}]
    files = {
        "nested": [{"turns": 5}, {"turns": turns}],
        "openai": [{"messages": 5}, {"messages": [USER, REPLY]}],
    }

    for name, rows in files.items():
        path = write(tmp_path / f"{name}.jsonl", rows)
        path.write_text('{"messages": [{"ro\n' + path.read_text() + '{"messages": [{"ro')
        (read,) = load_multiturn_dataset(path, skip_bad_rows=True)
        assert (read["completion"], read["score"]) == ("hello", 1.0)
        with pytest.raises(ValueError, match=f"{name}.jsonl row 1: not valid JSON .*--skip_bad"):
            load_multiturn_dataset(path)
    assert "nested.jsonl: 5 bad rows are skipped: row 1: not valid JSON (" in caplog.text
    assert "row 3, turn 0, response 1: must be a dict, got 'hello'" in caplog.text


@pytest.mark.parametrize(
    ("score", "kept"), [(0.25, 0.25), (0, 0.0), (None, 1.0), ("high", 1.0), (True, 1.0)]
)
def test_a_number_that_scores_a_conversation_scores_its_replies(tmp_path, score, kept):
    for talk in ({"messages": [USER, REPLY]}, {"conversations": [USER, REPLY]}):
        (read,) = load_multiturn_dataset(write(tmp_path / "s.jsonl", [{**talk, "score": score}]))
        assert read["score"] == kept
        with pytest.raises(ValueError, match="row 1: 'score' is NaN"):
            load_multiturn_dataset(write(tmp_path / "s.jsonl", [{**talk, "score": math.nan}]))


def test_a_row_that_does_not_fit_its_format_is_named(tmp_path):
    rows = [{"messages": [USER, REPLY]}, {"messages": [USER]}]

    with pytest.raises(ValueError, match="row 2: is no row of OpenAI chat rows .*no reply"):
        load_multiturn_dataset(write(tmp_path / "c.jsonl", rows))


def test_a_folder_with_a_split_in_it_loads_by_any_path(tmp_path, make_row, monkeypatch):
    write(tmp_path / "train.jsonl", [make_row()])
    monkeypatch.setenv("HOME", str(tmp_path.parent))

    assert len(load_multiturn_dataset(tmp_path)) == 1
    assert len(load_multiturn_dataset(f"~/{tmp_path.name}")) == 1
    with pytest.raises(FileNotFoundError, match="no eval.jsonl, .json or .parquet.*train.jsonl"):
        load_multiturn_dataset(tmp_path, "eval")


FORMATS = {
    "openai": {"messages": [USER, REPLY, MORE, LAST]},
    "sharegpt": {
        "conversations": [
            {"from": who, "value": text}
            for who, text in (("human", "hi"), ("gpt", "hello"), ("human", "more"), ("gpt", "bye"))
        ]
    },
    "preferences": {"prompt": [USER, REPLY, MORE], "chosen": "bye", "rejected": "no"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_user_says_is_the_task_on_one_side_of_the_split_in_training_and_evaluation(
    tmp_path, name
):
    path = write(tmp_path / "rows.jsonl", [FORMATS[name]])

    (task,) = load_tasks(path)
    rows = load_multiturn_dataset(path)

    assert (task.single_turn_prompt, task.opening) == ("hi\n\nmore", "hi")
    assert task.single_turn_completion == "bye"
    assert set(rows["single_turn_prompt"]) == {task.single_turn_prompt}
    assert task_key(task.to_row()) == task_key(rows[0])


@pytest.mark.parametrize("name", FORMATS)
def test_null_is_as_good_as_no_column(tmp_path, name):
    nulls = {"conv_id": None, "single_turn_prompt": None}
    path = write(tmp_path / "rows.jsonl", [{**FORMATS[name], **nulls}] * 2)

    rows = load_multiturn_dataset(path)

    assert set(rows["conv_id"]) == {0, 1}
    assert set(rows["single_turn_prompt"]) == {"hi\n\nmore"}
    assert [task.single_turn_prompt for task in load_tasks(path)] == ["hi\n\nmore"]


def test_a_column_says_otherwise_and_a_row_that_does_not_fit_is_no_task(tmp_path):
    rows = [{**FORMATS["openai"], "single_turn_prompt": "a goal"}]
    path = write(tmp_path / "rows.jsonl", rows)

    assert load_tasks(path)[0].single_turn_prompt == "a goal"
    assert set(load_multiturn_dataset(path)["single_turn_prompt"]) == {"a goal"}
    with pytest.raises(ValueError, match="bad.jsonl row 1: is no row of OpenAI chat rows"):
        load_tasks(write(tmp_path / "bad.jsonl", [{"messages": [USER]}]))


@pytest.mark.parametrize("name", FORMATS)
def test_the_viewer_shows_them_as_a_file_and_in_a_folder(tmp_path, name):
    path = write(tmp_path / "train.jsonl", [FORMATS[name]])

    for source, page in ((path, "train.html"), (tmp_path, "conversations.html")):
        view(str(source))
        assert '"hi' in (tmp_path / page).read_text()
