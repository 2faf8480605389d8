"""What is good to say after a model's own questions, from what its users answered."""

import json

import pytest

from collabllm.data_engine.corrections import correct_questions
from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.errors import IncompleteRunError
from collabllm.training.data import load_rows
from collabllm.training.settings import TrainingSettings
from scripts.correct_questions import main
from tests.fake_server import FakeServer

FACTS = [
    {"name": "when", "answer": "on Friday", "value": "Friday", "question": "When is it?"},
    {"name": "guests", "answer": "12 people", "value": "12", "question": "How many people come?"},
    {"name": "colour", "answer": "blue", "value": "blue", "question": "Which colour?"},
]
for fact, cue in zip(FACTS, ("when", "people", "colour"), strict=True):
    fact["cues"] = [cue]


def write_tasks(folder, number=1, facts=FACTS):
    rows = [
        {
            "task_id": f"party-{idx}",
            "single_turn_prompt": f"Party {idx}",
            "single_turn_completion": "Blue lamps on Friday, for 12.",
            "opening": f"Party {idx}!",
            "facts": facts,
        }
        for idx in range(number)
    ]
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def correct(folder, replies, *more, number=1, facts=FACTS):
    """Correct what a server replies, one text for all or one for each task."""

    def answer(body):
        said = body["messages"][-1]["content"]
        return replies if isinstance(replies, str) else replies.get(said, "?")

    with FakeServer(answer) as server:
        main(
            [
                *(
                    "--tasks",
                    write_tasks(folder, number, facts),
                    "--output_dir",
                    str(folder / "out"),
                ),
                *("--assistant_base_url", server.url, "--assistant_model", "m", *more),
            ]
        )
    return [json.loads(line) for line in (folder / "out/train.jsonl").read_text().splitlines()]


def test_after_questions_that_bring_a_part_the_rest_is_asked_for_and_then_the_task_is_done(
    tmp_path,
):
    flags = ("--num_told", "0", "--finished_share", "1")
    asks, does = correct(tmp_path, "How many people? And who are you?", *flags)

    said = [message["content"] for message in asks["prompt"]]
    assert said == ["Party 0!", "How many people? And who are you?", "12 people."]
    assert [fact["question"] in asks["completion"] for fact in FACTS] == [True, False, True]
    assert does["prompt"][:4] == [
        *asks["prompt"],
        {"role": "assistant", "content": asks["completion"]},
    ]
    assert does["prompt"][4]["content"] == "on Friday. blue."
    assert does["completion"] == "Blue lamps on Friday, for 12."


def test_what_was_asked_is_not_asked_again_though_the_user_did_not_understand(tmp_path):
    deaf = [*FACTS[:2], {**FACTS[2], "cues": ["shade"]}]
    flags = ("--num_told", "0", "--finished_share", "0")
    (row,) = correct(tmp_path, "Which colour?", *flags, facts=deaf)

    assert "blue" not in row["prompt"][-1]["content"]
    assert [fact["question"] in row["completion"] for fact in FACTS] == [True, True, False]


def test_who_knows_all_does_the_task(tmp_path):
    (row,) = correct(tmp_path, "When is it? How many people come? Which colour?", "--num_told", "0")

    assert row["completion"] == "Blue lamps on Friday, for 12."


def test_replies_that_ask_nothing_are_left_out_and_counted(tmp_path, capsys):
    replies = {"Party 0!": "Here is a party.", "Party 1!": "When?"}
    rows = correct(tmp_path, replies, "--num_told", "0", "--finished_share", "0", number=2)

    assert [row["conv_id"] for row in rows] == ["party-1"]
    assert "1 first replies without a question" in capsys.readouterr().out


def test_nothing_to_correct_is_an_error_and_leaves_no_rows(tmp_path):
    with pytest.raises(IncompleteRunError, match="No reply of 1 asked for anything"):
        correct(tmp_path, "Here is a party.")

    assert not (tmp_path / "out/train.jsonl").exists()


def test_tasks_without_questions_are_refused_before_anything_runs(tmp_path):
    facts = [{"name": "when", "answer": "on Friday", "value": "Friday"}]
    with pytest.raises(ValueError, match="no task has facts with a `question`"):
        correct_questions(tasks=write_tasks(tmp_path, facts=facts))


def test_rows_train_on_the_correction_and_not_on_what_was_corrected(tmp_path):
    correct(tmp_path, "How many people?", "--num_told", "0", "--finished_share", "1", number=4)
    with pytest.raises(FileExistsError, match="choose another --output_dir"):
        correct(tmp_path, "How many people?")

    rows = load_multiturn_dataset(str(tmp_path / "out/train.jsonl"))
    for row in multiturn_dataset_to_sft(rows)["train"]:
        weights = [m["weight"] for m in row["messages"] if m["role"] == "assistant"]
        assert weights == [0, 1, 1]


def test_rows_train_beside_a_dataset_whose_metadata_says_more(tmp_path):
    correct(tmp_path, "How many people?", "--num_told", "0")
    mine, other = (tmp_path / name for name in ("mine.jsonl", "other.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    for path, metadata in ((mine, {"kind": "party"}), (other, {"kind": "trip", "length": 3})):
        lines = [json.dumps({**row, "single_turn_metadata": metadata}) + "\n" for row in rows]
        path.write_text("".join(lines))

    joined = load_rows(TrainingSettings(hf_dataset_path=[str(mine), str(other)]))

    assert {row["single_turn_metadata"]["kind"] for row in joined} == {"party", "trip"}
    assert set(joined[0]["single_turn_metadata"]) == {"kind"}
