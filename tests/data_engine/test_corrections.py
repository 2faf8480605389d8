"""What is good to say after a model's own questions, from what its users answered."""

import json

import pytest

from collabllm.data_engine.corrections import correct_questions
from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.training.data import load_rows
from collabllm.training.settings import TrainingSettings
from scripts.correct_questions import main
from scripts.simulate_chats import main as simulate
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


def correct(folder, replies, *more, number=1, facts=FACTS, told=("0",), turns=2):
    """Let a server reply, one text to all or one to each message, and correct what it said."""

    def answer(body):
        said = body["messages"][-1]["content"]
        return replies if isinstance(replies, str) else replies.get(said, "Well.")

    tasks = ("--tasks", write_tasks(folder, number, facts))
    talks = ("--output_dir", str(folder / "talks"), "--max_turns", str(turns))
    with FakeServer(answer) as server:
        model = ("--assistant_base_url", server.url, "--assistant_model", "m")
        simulate([*tasks, *talks, *model, "--num_told", *told])
    main([*tasks, "--transcripts", str(folder / "talks"), "--output", str(folder / "out"), *more])
    return [json.loads(line) for line in (folder / "out/train.jsonl").read_text().splitlines()]


def asked_for(row):
    return [fact["question"] in row["completion"] for fact in FACTS]


def test_after_questions_that_bring_a_part_the_rest_is_asked_for_and_then_the_task_is_done(
    tmp_path,
):
    asks, does = correct(tmp_path, "How many people? And who are you?", "--finished_share", "1")

    said = [message["content"] for message in asks["prompt"]]
    assert said == ["Party 0!", "How many people? And who are you?", "12 people."]
    assert asked_for(asks) == [True, False, True]
    assert does["prompt"][:3] == asks["prompt"]
    assert [message["content"] for message in does["prompt"][3:]] == [
        asks["completion"],
        "on Friday. blue.",
    ]
    assert does["completion"] == "Blue lamps on Friday, for 12."


def test_what_was_asked_in_vain_is_not_asked_again_and_nothing_is_finished_without_it(tmp_path):
    deaf = [*FACTS[:2], {**FACTS[2], "cues": ["shade"]}]
    (row,) = correct(tmp_path, "Which colour?", "--finished_share", "1", facts=deaf)

    assert "blue" not in row["prompt"][-1]["content"]
    assert asked_for(row) == [True, True, False]


@pytest.mark.parametrize(
    "question", ["", "The budget is 100 euros.", "Under 50, over 50 (please specify how much)"]
)
def test_a_fact_that_nobody_can_ask_for_is_not_taken_as_told(tmp_path, question):
    budget = {"name": "budget", "answer": "100 euros", "value": "100", "cues": ["pay"]}
    facts = [FACTS[0], {**budget, "question": question}]

    with pytest.raises(ValueError, match=r"nothing to correct \(1 turns at which nothing could"):
        correct(tmp_path, "When is it?", "--finished_share", "1", facts=facts)


def test_a_question_is_known_by_its_words_and_not_by_its_apostrophe(tmp_path):
    question = "What\u2019s the date?"
    curly = [{**FACTS[0], "question": f"{question} Which day?", "cues": ["hour"]}, *FACTS[1:]]
    (row,) = correct(tmp_path, question, "--finished_share", "0", facts=curly)

    assert row["completion"].endswith("Which colour?")
    assert "date" not in row["completion"]


def test_a_goal_that_nobody_told_is_never_taken_as_known(tmp_path):
    with pytest.raises(ValueError, match="1 conversations of which nobody knows what is missing"):
        correct(tmp_path, "What is it about?", facts=[])


def test_who_knows_all_does_the_task(tmp_path):
    (row,) = correct(tmp_path, "When is it? How many people come? Which colour?")

    assert row["completion"] == "Blue lamps on Friday, for 12."


def test_in_place_of_a_question_where_nothing_is_missing_the_task_is_done(tmp_path):
    after, instead = correct(tmp_path, "Who are you?", told=("3",))

    assert [len(row["prompt"]) for row in (after, instead)] == [3, 1]
    assert {row["completion"] for row in (after, instead)} == {"Blue lamps on Friday, for 12."}
    assert all(fact["answer"] in instead["prompt"][0]["content"] for fact in FACTS)


def test_in_place_of_a_first_reply_without_a_question_what_is_missing_is_asked_for(
    tmp_path, capsys
):
    (row,) = correct(tmp_path, "Here you are.", told=("1",), turns=3)

    assert len(row["prompt"]) == 1
    assert asked_for(row).count(True) == 2
    output = capsys.readouterr().out
    assert "1 first replies that should have asked, 1 turns without a question" in output


def test_each_turn_of_a_longer_conversation_is_corrected_by_all_that_was_asked_and_told(tmp_path):
    replies = {"Party 0!": "How many people?", "12 people.": "When?"}
    first, second = correct(tmp_path, replies, "--finished_share", "0", turns=3)

    assert (asked_for(first), asked_for(second)) == ([True, False, True], [False, False, True])
    assert len(second["prompt"]) == 5
    assert first["conv_id"] != second["conv_id"]


def test_openings_tell_facts_in_turn(tmp_path):
    rows = correct(
        tmp_path, "Who are you?", "--finished_share", "0", number=4, told=("0", "3", "1")
    )

    told = [sum(fact["answer"] in row["prompt"][0]["content"] for fact in FACTS) for row in rows]
    assert sorted(told) == [0, 0, 1, 3, 3]
    assert sorted(sum(asked_for(row)) for row in rows) == [0, 0, 2, 3, 3]


def test_conversations_without_questions_or_of_other_tasks_are_left_out_and_counted(
    tmp_path, capsys
):
    replies = {"Party 0!": "Here is a party.", "Party 1!": "When?", "Party 2!": "When?"}
    flags = ("--finished_share", "0", "--num_tasks", "2")
    rows = correct(tmp_path, replies, *flags, number=3, turns=3)

    assert sorted(row["conv_id"] for row in rows) == ["party-0-0-1-instead", "party-1-0-1"]
    printed = capsys.readouterr().out
    assert "turns without a question" in printed
    assert "1 conversations about other tasks" in printed


def test_nothing_to_correct_is_an_error_and_leaves_no_rows(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to correct \(1 turns without a question\)"):
        correct(tmp_path, "Here is a party.", told=("3",))

    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="there are no transcripts"):
        correct_questions(transcripts=str(tmp_path / "none"))


def test_rows_train_on_the_correction_and_not_on_what_was_corrected(tmp_path):
    correct(tmp_path, "How many people?", "--finished_share", "1", number=4)
    with pytest.raises(FileExistsError, match="choose another --output_dir"):
        correct_questions(output_dir=str(tmp_path / "out"))

    rows = load_multiturn_dataset(str(tmp_path / "out/train.jsonl"))
    for row in multiturn_dataset_to_sft(rows)["train"]:
        weights = [m["weight"] for m in row["messages"] if m["role"] == "assistant"]
        assert weights == [0, 1, 1]


def test_rows_train_beside_a_dataset_whose_metadata_says_more(tmp_path):
    correct(tmp_path, "How many people?")
    mine, other = (tmp_path / name for name in ("mine.jsonl", "other.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    more = {"kind": "trip", "length": 3, "notes": {}}
    for path, metadata in ((mine, {"kind": "party", "notes": {}}), (other, more)):
        lines = [json.dumps({**row, "single_turn_metadata": metadata}) + "\n" for row in rows]
        path.write_text("".join(lines))

    joined = load_rows(TrainingSettings(hf_dataset_path=[str(mine), str(other)]))

    assert {row["single_turn_metadata"]["kind"] for row in joined} == {"party", "trip"}
    assert set(joined[0]["single_turn_metadata"]) == {"kind"}


def test_a_task_with_the_id_of_another_is_not_the_one_that_was_talked_about(tmp_path):
    assert correct(tmp_path, "How many people?", told=("1",))  # an opening tells more: one task
    file = tmp_path / "tasks.jsonl"
    row = json.loads(file.read_text())
    file.write_text(json.dumps({**row, "single_turn_prompt": "Another party"}) + "\n")

    with pytest.raises(ValueError, match="nothing to correct .1 conversations about other tasks"):
        correct_questions(
            tasks=str(file), transcripts=str(tmp_path / "talks"), output_dir=str(tmp_path / "b")
        )
