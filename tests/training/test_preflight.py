"""The preflight report: counts, quantiles, marks, and what stops a run."""

import pytest

from collabllm.data_processing import multiturn_dataset_to_sft
from collabllm.data_processing.dataset_utils import multiturn_dataset_to_dpo
from collabllm.training.tokenizing import tokenize_pairs, tokenize_rows
from tests.tokenizers_for_tests import make_tokenizer


def test_counts_marks_and_quantiles(make_conversation):
    rows = make_conversation([("hi", {"hello": 0.9}), ("more", {"no": 0.1}), ("so", {"bye": 0.8})])
    sft = multiturn_dataset_to_sft(rows, lower_bound_metric=0.5, system_prompt=None)["train"]

    tokenized, report = tokenize_rows(sft, make_tokenizer("chatml"), max_length=500)

    assert tokenized.column_names == ["input_ids", "labels"]
    assert (report.num_rows, report.num_items, report.num_lost) == (1, 2, 0)
    assert report.num_trained_tokens == 10  # bytes + end tokens
    assert report.num_tokens == len(tokenized[0]["input_ids"])
    assert "<<hello<|im_end|>>>" in report.examples[0]
    assert "<<no" not in report.examples[0]
    assert "100% " in report.to_text("training")


def test_long_examples_are_cut_to_their_ends_with_every_mark_closed(make_conversation):
    turns = [(f"ask {i} " + "why " * 300, {f"say {i}" + " so" * 300: 0.9}) for i in range(20)]
    sft = multiturn_dataset_to_sft(make_conversation(turns), system_prompt=None)["train"]

    example = tokenize_rows(sft, make_tokenizer("chatml"), max_length=None)[1].examples[0]

    assert len(example) < 4000
    assert example.startswith("<|im_start|>user\nask 0 why")
    assert "characters ...]" in example
    assert "\n[... 32 more parts ...]\n" in example
    assert example.endswith("so<|im_end|>>>")
    assert example.count("<<") == example.count(">>") == 4


def test_a_long_pair_shows_the_ends_of_prompt_and_replies(make_row):
    rows = [
        make_row(
            prompt=[{"role": "user", "content": "ask " * 900 + "now"}], completion=text, score=s
        )
        for text, s in (("good " * 900 + "end", 0.9), ("bad " * 900 + "stop", 0.1))
    ]
    pairs = multiturn_dataset_to_dpo(rows, system_prompt=None)["train"]

    example = tokenize_pairs(pairs, make_tokenizer("chatml"), max_length=None)[1].examples[0]

    assert len(example) < 1500
    assert "ask now<|im_end|>" in example
    assert "<<good good" in example
    assert "bad stop<|im_end|>>>" in example


def test_lost_and_dropped_are_counted(make_conversation):
    rows = make_conversation([("hi", {"hello": 0.9}), ("more " * 20, {"bye": 0.8})])
    rows += make_conversation([("long " * 50, {"x": 0.9})], conv_id=1)
    sft = multiturn_dataset_to_sft(rows, system_prompt=None)["train"]

    tokenized, report = tokenize_rows(sft, make_tokenizer("chatml"), max_length=60)

    assert len(tokenized) == 1
    assert (report.num_items, report.num_lost, report.num_dropped_rows) == (3, 2, 1)
    with pytest.raises(ValueError, match=r"2 of 3 replies \(66.7%\)"):
        report.check(60, allow_truncation=False)
    report.check(60, allow_truncation=True)
