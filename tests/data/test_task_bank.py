"""The task bank's promises: number, variety, what an entry says, and what nobody else wrote."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from collabllm.data.demo_generator import generate_rows
from collabllm.data.task_bank import is_test_kind, load_bank
from collabllm.data_processing import (
    load_multiturn_dataset,
    multiturn_dataset_to_dpo,
    multiturn_dataset_to_sft,
)
from collabllm.tasks import demo_tasks
from collabllm.tasks.demo import DEVELOPMENT_RATIO, KIND_COLUMN, demo_side
from collabllm.tasks.requests import find_questions
from collabllm.tasks.results import is_result
from collabllm.tasks.words import contains_value

IN3 = Path(__file__).parents[3] / "shared/data/in3/train.jsonl"
ENTRIES = load_bank()
TASKS = [entry for entry in ENTRIES if "facts" in entry]
SIDES = ("train", "development", "test")
CLEAR = [entry for entry in ENTRIES if "request" in entry]


def openings(entry):
    if "request" in entry:
        return [entry["request"]]
    return [*entry["vague"], entry["some"]["text"], entry["full"]]


def good_replies(entry):
    if "request" in entry:
        return [entry["result"]]
    return [*(ask["text"] for ask in entry["asks"]), entry["some"]["ask"], entry["result"]]


def test_it_is_as_large_and_varied_as_promised():
    assert len(TASKS) + len(CLEAR) == len(ENTRIES)
    assert len({entry["kind"] for entry in ENTRIES}) == len(ENTRIES) >= 600
    areas = Counter(entry["area"] for entry in ENTRIES)
    assert areas.keys() == {"everyday", "work", "technical", "creative", "research"}
    assert min(areas.values()) > 80
    assert len(CLEAR) >= 80
    texts = [text.lower() for entry in ENTRIES for text in openings(entry)]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


@pytest.mark.parametrize("entry", TASKS, ids=lambda entry: entry["kind"])
def test_an_entry_tells_and_asks_what_it_says(entry):
    values = {name: fact["value"] for name, fact in entry["facts"].items()}

    def told(text):
        return {name for name, value in values.items() if contains_value(text, value)}

    assert all(told(text) == set() for text in entry["vague"])
    assert told(entry["some"]["text"]) == set(entry["some"]["tells"])
    assert 0 < len(entry["some"]["tells"]) < len(values)
    assert told(entry["full"]) == set(values)
    assert told(entry["result"]) == set(values)
    assert sorted(name for ask in entry["asks"] for name in ask["for"]) == sorted(values)
    assert all(name in told(fact["say"]) for name, fact in entry["facts"].items())
    assert "?" not in entry["result"]


def test_good_final_replies_are_work_of_their_own_and_a_list_of_the_facts_is_none():
    tasks = [task for side in SIDES for task in demo_tasks(side) if task.facts]
    copied = []
    for task in tasks:
        said = " ".join([task.single_turn_prompt, *(fact.answer for fact in task.facts)])
        assert is_result(task.single_turn_completion, said, facts=task.facts), task.task_id
        if is_result(f"Here it is: {said}", said, facts=task.facts):
            copied.append(task.task_id)
    assert copied == []


def test_good_replies_ask_where_they_should_and_only_there():
    asks = [reply for entry in TASKS for reply in good_replies(entry)[:-1]]
    results = [entry["result"] for entry in ENTRIES]

    assert sum(bool(find_questions(text)) for text in asks) > 0.95 * len(asks)
    assert sum(bool(find_questions(text)) for text in results) < 0.05 * len(results)


@pytest.mark.parametrize("words", [2, 3, 4])
def test_no_phrase_begins_more_than_a_twentieth_of_the_good_replies(words):
    in_bank = [reply for entry in ENTRIES for reply in good_replies(entry)]
    in_demo = [
        row["completion"]
        for row in generate_rows()
        if row["single_turn_metadata"]["reply_kind"] == "best"
    ]

    for replies in (in_bank, in_demo):
        unnumbered = [re.sub(r"^\d\. ", "", reply) for reply in replies]
        starts = Counter(" ".join(re.findall(r"\w+", r.lower())[:words]) for r in unnumbered)
        phrase, count = starts.most_common(1)[0]
        assert count <= 0.05 * len(replies), phrase


@pytest.mark.skipif(not IN3.is_file(), reason="needs the IN3 file beside the project")
def test_no_task_of_another_author_is_in_it():
    def shingles(text):
        words = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(words[i : i + 6]) for i in range(max(len(words) - 5, 1))}

    with IN3.open() as stream:
        theirs = [json.loads(line)["task"] for line in stream]
    same = {" ".join(re.findall(r"[a-z0-9]+", text.lower())) for text in theirs}
    pieces = Counter(piece for text in theirs for piece in shingles(text) if len(piece) == 6)
    for entry in ENTRIES:
        for text in openings(entry):
            assert " ".join(re.findall(r"[a-z0-9]+", text.lower())) not in same
            found = [piece for piece in shingles(text) if piece in pieces]
            assert len(found) <= 3, (text, found)


def test_kinds_have_three_sides_and_none_is_on_two():
    sides = {side: demo_tasks(side) for side in SIDES}
    kinds = {side: {task.task_id for task in tasks} for side, tasks in sides.items()}

    assert sum(map(len, kinds.values())) == len(set.union(*kinds.values())) == len(ENTRIES)
    assert 0.1 < len(kinds["test"]) / len(ENTRIES) < 0.2
    assert 0.1 < len(kinds["development"]) / len(ENTRIES) < 0.25
    assert {task.task_id for task in demo_tasks()} == kinds["train"] | kinds["development"]


def test_the_demo_dataset_has_no_test_kind_and_training_holds_out_the_development_side():
    rows = list(generate_rows())
    sides = multiturn_dataset_to_sft(
        load_multiturn_dataset("demo"), DEVELOPMENT_RATIO, split_by=KIND_COLUMN
    )

    assert not any(is_test_kind(row["single_turn_metadata"]["kind"]) for row in rows)
    held_out = {metadata["kind"] for metadata in sides["eval"]["single_turn_metadata"]}
    trained = {metadata["kind"] for metadata in sides["train"]["single_turn_metadata"]}
    assert {demo_side(kind) for kind in held_out} == {"development"}
    assert {demo_side(kind) for kind in trained} == {"train"}


def test_the_demo_dataset_has_three_candidates_a_turn_and_the_best_is_the_good_one():
    dataset = load_multiturn_dataset("demo")
    turns = {}
    for row in dataset.to_list():
        turns.setdefault((row["conv_id"], row["turn_id"]), []).append(row)

    rows = list(generate_rows())
    assert dataset["completion"][:] == [row["completion"] for row in rows]  # none from a cache
    for candidates in turns.values():
        best = max(candidates, key=lambda row: row["score"])
        assert best["single_turn_metadata"]["reply_kind"] == "best"
        assert len({row["completion"] for row in candidates}) == 3


def test_the_worst_replies_of_preference_pairs_do_not_show_by_their_form():
    """Else preference training learns the form: not to ask at all, or to begin with a lead."""
    pairs = multiturn_dataset_to_dpo(load_multiturn_dataset("demo"), min_score_gap=0.3)["train"]
    replies = {
        side: [pair[side][0]["content"] for pair in pairs] for side in ("chosen", "rejected")
    }
    share = {
        side: (
            sum(bool(find_questions(text)) for text in texts) / len(texts),
            sum(text.startswith("Here") for text in texts)
            / sum(not find_questions(text) for text in texts),
        )
        for side, texts in replies.items()
    }

    asking, led = zip(share["chosen"], share["rejected"], strict=True)
    assert abs(asking[0] - asking[1]) < 0.2
    assert abs(led[0] - led[1]) < 0.1
    assert min(led) > 0.8
