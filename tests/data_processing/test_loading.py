"""load_multiturn_dataset: sources, forms, and errors that name the place."""

import json
import math

import pytest
from datasets import Dataset, DatasetDict

from collabllm.data_processing import arrow_rows, load_multiturn_dataset, loading


def write(tmp_path, rows, name="data.jsonl"):
    path = tmp_path / name
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.parquet", "folder", "dict"])
def test_every_source_gives_the_same_rows(tmp_path, make_row, name):
    rows = [make_row(conv_id=i, extra={"difficulty": i}) for i in range(7)]
    path = tmp_path / name
    if name == "data.parquet":
        Dataset.from_list(rows).to_parquet(path)
    elif name == "folder":
        Dataset.from_list(rows).save_to_disk(path)
    elif name == "dict":
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(path)
    else:
        write(tmp_path, rows, name)

    loaded = load_multiturn_dataset(path)

    assert loaded["conv_id"][:] == [0, 1, 2, 3, 4, 5, 6]
    assert loaded[3]["prompt"] == [{"role": "user", "content": "hi"}]
    assert loaded[3]["extra"] == {"difficulty": 3}
    assert loaded["turn_id"][:] == [1] * 7


def test_nested_rows_become_one_row_a_response(tmp_path):
    prompt = [{"role": "user", "content": "hi"}]
    nested = {
        "single_turn_prompt": "goal",
        "turns": [
            {
                "prompt": prompt,
                "responses": [
                    {"completion": "a", "score": 0.1},
                    {"completion": "b", "score": 1},
                ],
            }
        ],
    }

    loaded = load_multiturn_dataset(write(tmp_path, [nested, {**nested, "conv_id": None}]))

    assert loaded["completion"][:] == ["a", "b", "a", "b"]
    assert loaded["conv_id"][:] == [0, 0, 1, 1]
    assert loaded["score"][:] == [0.1, 1.0, 0.1, 1.0]
    assert loaded["single_turn_prompt"][:] == ["goal"] * 4


def test_nested_parquet_loads(tmp_path):
    turn = {"prompt": [{"role": "user", "content": "hi"}]}
    turn["responses"] = [{"completion": "a", "score": 0.1}]
    Dataset.from_list([{"turns": [turn], "conv_id": "x"}]).to_parquet(tmp_path / "n.parquet")

    loaded = load_multiturn_dataset(tmp_path / "n.parquet")

    assert loaded[0]["conv_id"] == "x"
    assert loaded[0]["completion"] == "a"


def test_columns_may_change_type_late_in_the_file(tmp_path, make_row):
    rows = [
        make_row(conv_id=i, score=1, note=1, rewards={"a": [0.123456789012345]})
        for i in range(2000)
    ]
    rows += [make_row(conv_id=2000, score=0.25, note="text", rewards={"a": [1, 2.5]})]

    loaded = load_multiturn_dataset(write(tmp_path, rows))

    assert loaded[2000]["score"] == 0.25
    assert [loaded[0]["note"], loaded[2000]["note"]] == [1, "text"]
    assert loaded[0]["rewards"] == {"a": [0.123456789012345]}


def test_an_empty_user_message_is_legal(tmp_path, make_row):
    path = write(tmp_path, [make_row(prompt=[{"role": "user", "content": ""}])])

    assert load_multiturn_dataset(path)[0]["prompt"][0]["content"] == ""


def test_a_changed_file_is_read_again(tmp_path, make_row):
    load_multiturn_dataset(write(tmp_path, [make_row(completion="old")]))
    loaded = load_multiturn_dataset(write(tmp_path, [make_row(completion="new one")]))

    assert loaded["completion"][:] == ["new one"]


def test_a_file_is_read_again_by_other_code(tmp_path, make_row, monkeypatch):
    path = write(tmp_path, [make_row(completion="as it is")])
    load_multiturn_dataset(path)

    fixed = [make_row(completion="as it should be", turn_id=1)]
    monkeypatch.setattr(loading, "check_rows", lambda *args: iter(fixed))
    assert load_multiturn_dataset(path)["completion"] == ["as it is"]
    monkeypatch.setattr(arrow_rows, "hash_code", lambda: "of the next version")
    assert load_multiturn_dataset(path)["completion"] == ["as it should be"]


USER = {"role": "user", "content": "hi"}
REPLY = {"role": "assistant", "content": "yo"}


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"score": math.nan}, "data.jsonl row 2: 'score' is NaN"),
        ({"score": math.inf}, "row 2: 'score' is infinite"),
        ({"score": 10**400}, "row 2: 'score' is too large"),
        ({"score": "high"}, "row 2: 'score' must be a number, got 'high'"),
        ({"score": True}, "'score' must be a number, got True"),
        ({"completion": "  "}, "'completion' must be a non-empty text, got '  '"),
        ({"prompt": []}, "'prompt' must be a non-empty list of messages, got []"),
        ({"prompt": [{"role": "bot", "content": "x"}]}, "unknown role 'bot'"),
        ({"prompt": [USER, USER]}, "roles are out of order: message 1 is 'user'"),
        ({"prompt": [REPLY]}, "message 0 is 'assistant' where 'user'"),
        ({"prompt": [USER, REPLY]}, "must end with the user message"),
        ({"prompt": [{"role": "user"}]}, "message 0 must be a dict with 'role' and 'content'"),
        ({"prompt": [{"role": "user", "content": 3}]}, "must have text as content, got 3"),
        ({"turn_id": 3}, "'turn_id' is 3, but its prompt has 1 messages"),
        ({"conv_id": 1.5}, "'conv_id' must be a whole number or a text, got 1.5"),
        ({"conv_id": None}, "missing 'conv_id'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, make_row, columns, text):
    path = write(tmp_path, [make_row(), make_row(**columns)])

    with pytest.raises(ValueError, match="row 2") as error:
        load_multiturn_dataset(path)

    assert text in str(error.value)


def test_a_missing_column_of_a_table_names_those_there_are(tmp_path):
    Dataset.from_list([{"text": "x"}]).to_parquet(tmp_path / "t.parquet")

    with pytest.raises(ValueError, match=r"t.parquet: missing 'prompt', .*; it has 'text'"):
        load_multiturn_dataset(tmp_path / "t.parquet")


def test_broken_json_names_the_line(tmp_path, make_row):
    path = write(tmp_path, [make_row()])
    path.write_text(path.read_text() + '{"prompt": [')

    with pytest.raises(ValueError, match=r"data.jsonl row 2: not valid JSON"):
        load_multiturn_dataset(path)


def test_files_that_do_not_exist_or_are_empty_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "data.csv").touch()

    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_multiturn_dataset(tmp_path / "nope.jsonl")
    with pytest.raises(ValueError, match="empty.jsonl: has no rows"):
        load_multiturn_dataset(tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match="use .jsonl, .json or .parquet"):
        load_multiturn_dataset(tmp_path / "data.csv")


def test_a_file_that_is_not_utf_8_is_named(tmp_path, make_row):
    for name in ("data.jsonl", "data.json"):
        path = write(tmp_path, [make_row()], name)
        path.write_bytes(path.read_bytes().replace(b"hi", "hü".encode("latin-1")))

        with pytest.raises(ValueError, match=f"{name}: is not UTF-8 .*; save it as UTF-8"):
            load_multiturn_dataset(path)


def test_what_json_cannot_hold_names_the_row(tmp_path, make_row):
    path = write(tmp_path, [make_row()])
    for value in ("9" * 5000, "[" * 100_000 + "]" * 100_000):
        path.write_text(f'{path.read_text().splitlines()[0]}\n{{"a": {value}}}\n')

        with pytest.raises(ValueError, match=r"data\.jsonl row 2: not valid JSON"):
            load_multiturn_dataset(path)


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
def test_half_an_emoji_becomes_a_question_mark_and_whole_ones_stay(tmp_path, make_row, name):
    rows = [make_row(completion="cut \ud83d"), make_row(conv_id=1, completion="whole \U0001f600")]

    loaded = load_multiturn_dataset(write(tmp_path, rows, name))

    assert loaded["completion"][:] == ["cut ?", "whole \U0001f600"]


def test_a_configuration_is_refused_where_there_are_none(tmp_path, make_row):
    file = write(tmp_path, [make_row()], "train.jsonl")

    for path in (file, tmp_path, "demo"):
        with pytest.raises(ValueError, match=rf"{path}: --dataset_config main is for .* the Hub"):
            load_multiturn_dataset(path, config_name="main")


def test_configuration_and_split_of_a_hub_dataset_are_asked_for(make_row, monkeypatch):
    asked = []
    monkeypatch.setattr(loading, "check_reachable", lambda *where: None)
    monkeypatch.setattr(
        loading,
        "load_dataset",
        lambda *what, **split: asked.append((what, split)) or Dataset.from_list([make_row()]),
    )

    load_multiturn_dataset("org/rows", "test", config_name="hard")

    assert asked == [(("org/rows", "hard"), {"split": "test"})]


def test_the_real_dataset_loads(twenty_questions):
    loaded = load_multiturn_dataset(twenty_questions)

    assert len(loaded) == 1976
    assert len(set(loaded["conv_id"])) == 52
    assert loaded[0]["rewards"]["llm_judge"] == 0.638889
