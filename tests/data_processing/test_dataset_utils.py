"""multiturn_dataset_to_sft and _to_dpo: which replies are kept, in which rows, on which side."""

import copy
import random

import pytest
from datasets import Dataset, DatasetDict

from collabllm.data_processing import (
    DEFAULT_SYSTEM_PROMPT,
    load_multiturn_dataset,
    multiturn_dataset_to_dpo,
    multiturn_dataset_to_prompts,
    multiturn_dataset_to_sft,
)


def replies(row):
    return [(m["content"], m["weight"]) for m in row["messages"] if m["role"] == "assistant"]


def test_best_scored_reply_of_each_turn_is_kept(make_row):
    vague = make_row(score=0.2, completion="vague")
    clear = make_row(score=0.9, completion="clear")

    rows = multiturn_dataset_to_sft([vague, clear])["train"]

    assert [row["messages"][-1]["content"] for row in rows] == ["clear"]
    assert rows[0]["score"] == 0.9
    assert rows[0]["single_turn_completion"] == "answer"


def test_the_first_of_equal_scores_wins(make_row):
    rows = [make_row(completion="first"), make_row(completion="second")]

    assert replies(multiturn_dataset_to_sft(rows)["train"][0]) == [("first", 1)]


def test_the_system_prompt_comes_first_unless_the_prompt_has_one(make_row):
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}]
    rows = [make_row(conv_id=0), make_row(conv_id=1, prompt=own)]

    default = multiturn_dataset_to_sft(rows)["train"]
    none = multiturn_dataset_to_sft(rows, system_prompt="")["train"]

    assert [row["messages"][0]["content"] for row in default] == [DEFAULT_SYSTEM_PROMPT, "own"]
    assert [row["messages"][0]["content"] for row in none] == ["hi", "own"]


def test_merged_gives_one_row_with_a_weight_on_each_reply(make_conversation):
    rows = make_conversation(
        [("a", {"A": 0.9, "x": 0.1}), ("b", {"B": 0.3, "y": 0.2}), ("c", {"C": 0.8})]
    )

    merged = multiturn_dataset_to_sft(rows, lower_bound_metric=0.5)["train"]

    assert [replies(row) for row in merged] == [[("A", 1), ("B", 0), ("C", 1)]]
    assert (merged[0]["turn_id"], merged[0]["score"]) == (5, 0.8)


def test_a_best_reply_that_was_not_continued_gets_a_row_of_its_own(make_row, make_conversation):
    rows = make_conversation([("a", {"A": 0.9}), ("b", {"B": 0.8})])
    rows.append(make_row(prompt=rows[0]["prompt"], completion="better A", score=1.0))

    merged = multiturn_dataset_to_sft(rows)["train"]

    assert [replies(row) for row in merged] == [
        [("better A", 1)],
        [("A", 0), ("B", 1)],
    ]


def test_a_late_reply_under_the_threshold_is_not_in_the_row(make_conversation):
    rows = make_conversation([("a", {"A": 0.9}), ("b", {"B": 0.1})])

    merged = multiturn_dataset_to_sft(rows, lower_bound_metric=0.5)["train"]

    assert replies(merged[0]) == [("A", 1)]


def test_every_gives_one_row_a_turn(make_conversation):
    rows = make_conversation([("a", {"A": 0.9}), ("b", {"B": 0.8})])

    every = multiturn_dataset_to_sft(rows, turns="every")["train"]

    assert [replies(row) for row in every] == [[("A", 1)], [("A", 0), ("B", 1)]]


def test_score_column_reaches_into_dicts_and_averages_lists(make_row):
    rows = [
        make_row(completion="a", score=1.0, rewards={"accuracy": [0.0, 0.2]}),
        make_row(completion="b", score=0.0, rewards={"accuracy": [1.0, 0.5]}),
    ]

    kept = multiturn_dataset_to_sft(rows, score_column="rewards.accuracy")["train"][0]

    assert replies(kept) == [("b", 1)]
    assert kept["score"] == 0.75
    with pytest.raises(ValueError, match="row 1: 'rewards.speed' must be a finite number"):
        multiturn_dataset_to_sft(rows, score_column="rewards.speed")


def test_percentile_replaces_the_threshold(make_row):
    rows = [make_row(conv_id=i, score=-10.0 + i) for i in range(5)]

    kept = multiturn_dataset_to_sft(rows, lower_bound_percentile=50)["train"]

    assert kept["score"][:] == [-8.0, -7.0, -6.0]


def test_tasks_stay_on_their_side_when_rows_or_thresholds_change(make_row):
    rows = [
        make_row(conv_id=i, single_turn_prompt=f"task {i % 20}", score=i / 60) for i in range(60)
    ]

    full = multiturn_dataset_to_sft(rows, eval_ratio=0.3)
    fewer = multiturn_dataset_to_sft(rows[::2], eval_ratio=0.3, lower_bound_metric=0.3)

    held_out = set(full["eval"]["single_turn_prompt"])
    assert len(held_out) == 7
    assert held_out.isdisjoint(full["train"]["single_turn_prompt"])
    assert set(fewer["eval"]["single_turn_prompt"]) <= held_out
    assert held_out.isdisjoint(fewer["train"]["single_turn_prompt"])


def test_split_by_a_dotted_column_holds_out_whole_groups(make_row):
    rows = [
        make_row(conv_id=i, single_turn_prompt=str(i), single_turn_metadata={"domain": f"d{i % 9}"})
        for i in range(45)
    ]

    sides = multiturn_dataset_to_sft(rows, eval_ratio=0.4, split_by="single_turn_metadata.domain")

    domains = {
        side: {row["domain"] for row in sides[side]["single_turn_metadata"]} for side in sides
    }
    assert domains["train"].isdisjoint(domains["eval"])
    assert len(domains["train"] | domains["eval"]) == 9


def test_the_order_of_rows_does_not_matter_and_the_input_is_unchanged(make_conversation):
    rows = [
        row
        for i in (10, 2, 1)
        for row in make_conversation([("a", {"A": 0.9, "x": 0.2}), ("b", {"B": 0.8})], conv_id=i)
    ]
    before = copy.deepcopy(rows)
    shuffled = random.Random(0).sample(rows, len(rows))

    first = multiturn_dataset_to_sft(rows)["train"]
    second = multiturn_dataset_to_sft(shuffled)["train"]

    assert first.to_list() == second.to_list()
    assert first["conv_id"][:] == [1, 2, 10]
    assert rows == before


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"eval_ratio": 1.0}, r"eval_ratio must be in \[0, 1\), got 1.0"),
        ({"eval_ratio": -0.1}, r"eval_ratio must be in \[0, 1\), got -0.1"),
        ({"turns": "all"}, "turns must be one of merged, every, got 'all'"),
        ({"lower_bound_percentile": 101}, r"must be in \[0, 100\], got 101"),
        ({"lower_bound_metric": 9}, "train would be empty: .* score at most 0.5"),
        ({"eval_ratio": 0.001}, "eval would be empty: .* none of 1 tasks"),
    ],
)
def test_bad_settings_are_refused(make_row, settings, text):
    with pytest.raises(ValueError, match=text):
        multiturn_dataset_to_sft([make_row()], **settings)


def test_dpo_pairs_best_with_worst_and_leaves_out_ties(make_conversation):
    rows = make_conversation(
        [("a", {"A": 0.9, "m": 0.5, "x": 0.1}), ("b", {"B": 0.4, "y": 0.4}), ("c", {"C": 0.4})]
    )

    pairs = multiturn_dataset_to_dpo(rows, system_prompt=None)["train"]

    assert len(pairs) == 1
    assert pairs[0]["prompt"] == [{"role": "user", "content": "a"}]
    assert pairs[0]["chosen"][0]["content"] == "A"
    assert pairs[0]["rejected"][0]["content"] == "x"
    assert (pairs[0]["chosen_score"], pairs[0]["rejected_score"]) == (0.9, 0.1)


def test_dpo_refuses_when_no_gap_is_large_enough(make_conversation):
    rows = make_conversation([("a", {"A": 0.9, "x": 0.8})])

    with pytest.raises(ValueError, match="1 have a gap under 0.5"):
        multiturn_dataset_to_dpo(rows, min_score_gap=0.5)


def test_an_sft_eval_task_is_never_a_dpo_train_task(make_row):
    rows = [
        make_row(conv_id=i, single_turn_prompt=f"task {i}", completion=c, score=s)
        for i in range(30)
        for c, s in (("good", 1.0), ("bad", 0.0))
    ]

    sft = multiturn_dataset_to_sft(rows, eval_ratio=0.3)
    dpo = multiturn_dataset_to_dpo(rows, eval_ratio=0.3)

    assert set(sft["eval"]["single_turn_prompt"]) == set(dpo["eval"]["single_turn_prompt"])


def test_on_the_real_dataset_every_turn_is_trained_once(twenty_questions):
    dataset = load_multiturn_dataset(twenty_questions)

    merged = multiturn_dataset_to_sft(dataset)["train"]
    every = multiturn_dataset_to_sft(dataset, turns="every")["train"]

    assert (len(merged), len(every)) == (52, 988)
    assert sum(weight for row in merged for _, weight in replies(row)) == 988


@pytest.mark.parametrize("name", ["total", "MR"])
def test_confidence_in_the_sampled_rewards_decides_instead_of_the_gap(make_row, caplog, name):
    def turn(conv_id, good, bad):
        return [
            make_row(conv_id=conv_id, completion=reply, score=sum(r) / 3, rewards={name: r})
            for reply, r in (("good", good), ("bad", bad))
        ]

    usual = [
        row
        for idx in range(20)
        for row in turn(f"usual {idx}", [0.3 + idx, 0.4 + idx, 0.5 + idx], [idx, 0.11 + idx, idx])
    ]
    lucky = turn("lucky", [0.0, 0.0, 0.2], [0.1, 0.0, 0.05])
    with caplog.at_level("INFO"):
        pairs = multiturn_dataset_to_dpo([*usual, *lucky], min_confidence=0.9)["train"]

    assert set(pairs["conv_id"]) == {f"usual {idx}" for idx in range(20)}
    assert "20 preference pairs from 21 turns" in caplog.text
    assert "1 with a confidence under 0.9" in caplog.text
    wide = multiturn_dataset_to_dpo([*usual, *lucky], min_score_gap=0.01)["train"]
    assert "lucky" in wide["conv_id"]


def test_one_turn_alone_is_sure_of_little(make_row):
    rows = [
        make_row(conv_id="a", completion=reply, score=sum(r) / 2, rewards={"total": r})
        for reply, r in (("good", [1.0, 1.0]), ("bad", [0.0, 0.0]))
    ]

    with pytest.raises(ValueError, match="1 have a confidence under 0.9"):
        multiturn_dataset_to_dpo(rows, min_confidence=0.9)


def test_no_score_is_too_low_unless_a_threshold_says_so(make_row):
    rows = [make_row(conv_id="a", score=-0.4), make_row(conv_id="b", score=0.2)]

    assert len(multiturn_dataset_to_sft(rows)["train"]) == 2
    assert len(multiturn_dataset_to_sft(rows, lower_bound_metric=0.0)["train"]) == 1


@pytest.mark.parametrize("convert", [multiturn_dataset_to_sft, multiturn_dataset_to_dpo])
def test_replies_to_different_prompts_are_no_candidates_of_one_turn(make_row, convert):
    """Concatenated datasets whose conv_ids both start at 0."""
    other = [{"role": "user", "content": "another question"}]
    rows = [make_row(score=0.9), make_row(score=0.1), make_row(score=0.2, prompt=other)]

    with pytest.raises(ValueError, match=r"row 3 and row 1 .*conv_id 0.*different prompts"):
        convert(rows)


def test_a_reply_is_no_better_than_the_same_words(make_row, caplog):
    rows = [make_row(score=score, completion="a") for score in (1.0, 0.0)]
    rows += [make_row(conv_id=1, score=score, completion=str(score)) for score in (1.0, 0.0)]

    with caplog.at_level("INFO"):
        (pair,) = multiturn_dataset_to_dpo(rows)["train"]

    assert (pair["conv_id"], pair["rejected"][0]["content"]) == (1, "0.0")
    assert "1 preference pairs from 2 turns; left out: 1 ties, equal or single" in caplog.text


CONVERSIONS = [multiturn_dataset_to_sft, multiturn_dataset_to_dpo, multiturn_dataset_to_prompts]


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_a_table_of_another_source_needs_no_turn_id(make_row, convert):
    rows = [make_row(score=1.0), make_row(score=0.0, completion="worse")]
    table = Dataset.from_list([{k: v for k, v in row.items() if k != "turn_id"} for row in rows])

    assert convert(table)["train"]["turn_id"][:] == [1]


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_columns_are_rows(make_row, convert):
    rows = [make_row(score=1.0), make_row(score=0.0, completion="worse")]
    columns = {name: [row[name] for row in rows] for name in rows[0]}

    assert convert(columns)["train"][:] == convert(rows)["train"][:]


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_what_is_no_rows_is_refused(make_row, convert):
    chats = Dataset.from_list([{"messages": [{"role": "user", "content": "hi"}]}])

    for dataset, text in (
        (DatasetDict({"train": chats, "test": chats}), "has splits, train, test: give the rows"),
        ({"train": [], "test": [{}]}, "has splits, train, test: give the rows"),
        (chats, "missing 'completion', 'conv_id', 'prompt'; it has 'messages'"),
        ("train.jsonl", "row 1: must be an object with the columns .*, got 't'"),
    ):
        with pytest.raises(ValueError, match=text):
            convert(dataset)


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_a_split_by_a_column_that_no_row_has_is_refused(make_row, convert):
    rows = [make_row(score=1.0), make_row(score=0.0, completion="worse")]

    with pytest.raises(ValueError, match="--split_by topic: no row has this column; there are"):
        convert(rows, split_by="topic")


def test_confidence_without_sampled_rewards_is_refused(make_row):
    rows = [make_row(score=1.0), make_row(score=0.0)]

    with pytest.raises(ValueError, match=r"min_confidence needs 'rewards.total' or 'rewards.MR'"):
        multiturn_dataset_to_dpo(rows, min_confidence=0.9)
    with pytest.raises(ValueError, match=r"min_confidence must be in \[0.5, 1\), got 1.5"):
        multiturn_dataset_to_dpo(rows, min_confidence=1.5)


def test_each_distinct_turn_is_one_prompt_on_the_side_of_its_task(make_row):
    opening = [{"role": "user", "content": "hi"}]
    later = [
        *opening,
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "go on"},
    ]
    rows = [
        make_row(
            conv_id=conv_id, prompt=prompt, completion=reply, single_turn_prompt=f"goal {goal}"
        )
        for conv_id, goal in ((0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (5, 4))
        for prompt in (opening, later)
        for reply in ("a", "b")
    ]

    prompts = multiturn_dataset_to_prompts(rows, eval_ratio=0.4, system_prompt="Be brief.")
    pairs = multiturn_dataset_to_sft(rows, eval_ratio=0.4)

    assert len(prompts["train"]) + len(prompts["eval"]) == 10  # two turns of five goals
    first = prompts["train"][0]["prompt"]
    assert [m["content"] for m in first] == ["Be brief.", "hi"]
    for side in ("train", "eval"):
        goals = set(prompts[side]["single_turn_prompt"])
        assert goals == set(pairs[side]["single_turn_prompt"]) != set()
