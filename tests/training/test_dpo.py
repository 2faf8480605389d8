"""scripts/train_dpo.py from flags to adapter, on a tiny model with NF4 on the CPU."""

import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from collabllm.training.dpo import DPO
from collabllm.training.held_out import compare_with_reference, rank_pairs
from scripts.train_dpo import main
from scripts.train_sft import main as train_sft


@pytest.fixture
def dpo_flags(sft_flags):
    def flags(**changes):
        return sft_flags(**{"learning_rate": 1e-3, "max_steps": 6, "batch_size": 4, **changes})

    return flags


def test_a_run_raises_the_held_out_margin_and_leaves_what_sft_leaves(dpo_flags, tmp_path, capsys):
    main(dpo_flags(max_steps=20))

    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    before, after = metrics["before"], metrics["after"]
    assert (before["margin"], before["reward_accuracy"]) == (0.0, 0.5)
    assert after["margin"] > 0
    assert after["reward_accuracy"] > 0.9
    assert before["num_pairs"] == metrics["data"]["held-out pairs"]
    assert "by preference (DPO)" in (folder / "README.md").read_text()
    assert (folder / "train_config.yaml").read_text().startswith("# scripts/train_dpo.py")
    assert not (folder / "ref").exists()
    output = capsys.readouterr().out
    assert "rather than <<" in output
    assert "reward margin" in output


def test_from_an_sft_adapter_the_reference_is_that_adapter(dpo_flags, sft_flags, start, tmp_path):
    train_sft(sft_flags(output_dir=tmp_path / "sft", max_steps=6))
    run, data = start(dpo_flags(lora_path=tmp_path / "sft", lora_r=None), DPO())
    trainer = run.method.build_trainer(run, data)
    trained = load_file(tmp_path / "sft/adapter_model.safetensors")
    weights = dict(trainer.model.named_parameters())
    for name, expected in trained.items():  # TRL would have rounded the policy to bf16
        policy = weights[f"{name.removesuffix('.weight')}.default.weight"]
        torch.testing.assert_close(policy, expected, rtol=0, atol=0)

    trainer.train()

    first_loss = next(e["loss"] for e in trainer.state.log_history if "loss" in e)
    assert first_loss == pytest.approx(math.log(2), abs=1e-4)  # policy and reference are equal
    for name, expected in trained.items():
        stem = name.removesuffix(".weight")
        reference = weights[f"{stem}.ref.weight"]
        torch.testing.assert_close(reference, expected, rtol=0, atol=0)
        assert not torch.equal(weights[f"{stem}.default.weight"].float(), expected.float())


def test_the_saved_adapter_continues_the_sft_adapter_and_loads_alone(
    dpo_flags, sft_flags, tmp_path
):
    train_sft(sft_flags(output_dir=tmp_path / "sft", max_steps=6))
    main(dpo_flags(lora_path=tmp_path / "sft", output_dir=tmp_path / "dpo", max_steps=2))

    first = load_file(tmp_path / "sft/adapter_model.safetensors")
    last = load_file(tmp_path / "dpo/adapter_model.safetensors")
    assert set(first) == set(last)
    change = max((last[n].float() - first[n].float()).abs().max() for n in first)
    assert 0 < change < 0.05


def test_an_interrupted_run_goes_on_to_the_same_adapter(dpo_flags, sft_flags, tmp_path):
    train_sft(sft_flags(output_dir=tmp_path / "sft", max_steps=6))
    common = {"lora_path": tmp_path / "sft", "save_strategy": "steps", "save_steps": 2}
    main(dpo_flags(output_dir=tmp_path / "whole", **common))
    for checkpoint in (4, 6):
        source = tmp_path / f"whole/checkpoint-{checkpoint}"
        assert source.is_dir()
    main(
        dpo_flags(
            output_dir=tmp_path / "resumed",
            resume_from_checkpoint=tmp_path / "whole/checkpoint-2",
            **common,
        )
    )

    whole = load_file(tmp_path / "whole/adapter_model.safetensors")
    resumed = load_file(tmp_path / "resumed/adapter_model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_killed_after_its_last_step_is_scored_as_it_would_have_been(
    dpo_flags, sft_flags, tmp_path
):
    train_sft(sft_flags(output_dir=tmp_path / "sft"))
    common = {"lora_path": tmp_path / "sft", "lora_r": None, "max_steps": 2}
    common |= {"save_strategy": "steps", "save_steps": 1}
    main(dpo_flags(output_dir=tmp_path / "whole", **common))
    last = tmp_path / "whole/checkpoint-2"

    main(dpo_flags(output_dir=tmp_path / "resumed", resume_from_checkpoint=last, **common))

    names = ("whole", "resumed")
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in names)
    assert all(torch.equal(one[name], two[name]) for name in one)
    whole, again = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in names)
    assert again["after"] == whole["after"] != whole["before"]


def test_pairs_are_tokenized_by_our_own_labels(dpo_flags, start):
    run, data = start(dpo_flags(), DPO())
    row = data.train[0]
    decode = run.tokenizer.decode

    assert decode(row["prompt_ids"]).endswith("<|im_start|>assistant\n")
    assert decode(row["chosen_ids"]).startswith("which ")
    assert decode(row["chosen_ids"]).endswith("?<|im_end|>")
    assert decode(row["rejected_ids"]) == "once upon a time<|im_end|>"


def test_pairs_that_do_not_fit_stop_the_run(dpo_flags):
    with pytest.raises(ValueError, match=r"do not fit into max_length=24|none fits into"):
        main(dpo_flags(max_length=24))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"beta": -0.1}, "beta must not be negative, got -0.1"),
        ({"sync_ref_model": "true"}, "--sync_ref_model needs a second model as the reference"),
        ({"loss_type": "sigmiod"}, "loss_type 'sigmiod' is not known; there are sigmoid, hinge"),
    ],
)
def test_what_trl_would_find_in_the_first_step_ends_the_run_before_weights_load(
    dpo_flags, flags, says
):
    with pytest.raises(ValueError, match=re.escape(says)):
        main(dpo_flags(**flags))


def test_margins_and_accuracies_are_those_worked_out_by_hand():
    # Sum of log-probabilities, right tokens, tokens; best and worst of two pairs.
    reference = np.array([[-10.0, 0, 5], [-10.0, 0, 5], [-20.0, 0, 10], [-8.0, 0, 4]])
    policy = np.array([[-8.0, 0, 5], [-11.0, 0, 5], [-22.0, 0, 10], [-8.0, 0, 4]])

    # Rewards 0.1 * (2, -1, -2, 0): margins 0.3 and -0.2.
    assert compare_with_reference(policy, reference, 0.1) == {
        "margin": pytest.approx(0.05),
        "reward_accuracy": 0.5,
    }
    # Means a token: -1.6 > -2.2, and -2.2 < -2.
    assert rank_pairs(policy) == {"ranking_accuracy": 0.5, "num_pairs": 2}
