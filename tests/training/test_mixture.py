"""Several datasets in one run: how often each comes, what is held out, and what is refused."""

import json
from collections import Counter

import pytest
from datasets import Dataset

from collabllm.data_processing import multiturn_dataset_to_sft
from collabllm.training.data import load_rows
from collabllm.training.dpo import DPO
from collabllm.training.settings import SFTSettings
from scripts.train_sft import main


@pytest.fixture
def other(tmp_path, small_dataset):
    """Conversations of the same shape and with the same conv_ids, but other words."""
    path = tmp_path / "other.jsonl"
    path.write_text(small_dataset.read_text().replace("task", "topic"))
    return path


@pytest.fixture
def mixed(sft_flags, small_dataset, other):
    """Flags of a run on both: the first twice, half of the second."""

    def flags(**changes):
        words = sft_flags(hf_dataset_path=None, **changes)
        paths = ["--hf_dataset_path", str(small_dataset), str(other)]
        return [*words, *paths, "--dataset_weights", "2", "0.5"]

    return flags


def count(run, rows, column):
    """Count how often each text comes, for each of the two datasets."""
    texts = Counter(run.tokenizer.decode(row[column]) for row in rows)
    return [
        [number for text, number in texts.items() if f"with {word}" in text]
        for word in ("task", "topic")
    ]


def test_an_epoch_has_each_conversation_as_often_as_its_weight_says(mixed, start):
    run, data = start(mixed(eval_ratio=0))

    twice, half = count(run, data.train, "input_ids")
    assert twice == [2] * 24
    assert set(half) == {1}
    assert 6 <= len(half) <= 18  # of 24, chosen by a hash
    assert data.preflight.num_rows == 48 + len(half)


def test_pairs_are_weighed_by_conversation_and_what_is_held_out_is_not_weighed(mixed, start):
    run, data = start(mixed(), DPO())

    twice, half = count(run, data.train, "prompt_ids")
    assert {number % 2 for number in twice} == {0}
    assert sum(half) < sum(twice) / 2
    for side in count(run, data.eval, "prompt_ids"):
        assert side


def test_a_run_trains_on_both_and_says_so(mixed, tmp_path):
    main(mixed(max_steps=2))

    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["data"]["rows"] == 2 * 24 * 2 * 3
    assert "small.jsonl, " in (tmp_path / "run/README.md").read_text()
    assert "dataset_weights:\n- 2.0\n- 0.5" in (tmp_path / "run/train_config.yaml").read_text()


def test_conversations_that_share_a_conv_id_are_refused_with_file_rows_and_remedy(
    sft_flags, start, small_dataset, other, tmp_path
):
    joined = tmp_path / "joined.jsonl"
    joined.write_text(small_dataset.read_text() + other.read_text())
    words = [*sft_flags(hf_dataset_path=None), "--hf_dataset_path", str(small_dataset), str(joined)]

    for method in (None, DPO()):
        with pytest.raises(
            ValueError, match=r"joined.jsonl: row 145 and row 1 have conv_id 0.*--hf_dataset_path A"
        ):
            start(words, method)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("split_by", ["single_turn_prompt", "single_turn_metadata.kind"])
def test_tasks_stay_on_one_side_beside_a_dataset_without_tasks(tmp_path, make_row, split_by):
    column, _, key = split_by.partition(".")
    tasks = [f"task {idx % 20}" for idx in range(100)]
    named = [
        make_row(conv_id=idx, **{column: {key: task} if key else task})
        for idx, task in enumerate(tasks)
    ]
    others = [make_row(conv_id=idx) for idx in range(100)]
    for row in others:
        del row["single_turn_prompt"]
    paths = [
        write_rows(tmp_path / f"{name}.jsonl", rows)
        for name, rows in (("named", named), ("other", others))
    ]

    rows = load_rows(SFTSettings(hf_dataset_path=paths, split_by=split_by))
    sides = multiturn_dataset_to_sft(rows, 0.3, split_by=split_by)

    train, held_out = (
        {tasks[int(conv_id[2:])] for conv_id in side["conv_id"] if conv_id.startswith("0/")}
        for side in (sides["train"], sides["eval"])
    )
    assert (len(train | held_out), train & held_out) == (20, set())
    assert {conv_id[0] for conv_id in sides["eval"]["conv_id"]} == {"0", "1"}


def test_whole_scores_and_further_keys_of_messages_join(tmp_path, make_row):
    message = {"role": "user", "content": "hi", "name": "Bo"}
    Dataset.from_list([make_row(score=1, prompt=[message])]).to_parquet(tmp_path / "b.parquet")
    paths = [write_rows(tmp_path / "a.jsonl", [make_row()]), str(tmp_path / "b.parquet")]

    for order in (paths, paths[::-1]):
        rows = load_rows(SFTSettings(hf_dataset_path=order))
        assert sorted(rows["score"]) == [0.5, 1.0]
        assert rows["prompt"][:] == [[{"role": "user", "content": "hi"}]] * 2
