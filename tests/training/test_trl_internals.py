"""What this package uses of TRL beyond its documented interface; a new TRL is tried here first."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
import transformers
import trl
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from collabllm.training.dpo import DPO, LOSS_TYPES

ROOT = Path(__file__).parents[2]


def test_the_bound_of_trl_ends_before_the_next_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert "trl>=1.16,<1.17" in project["dependencies"]
    assert trl.__version__.startswith("1.16.")


@pytest.mark.parametrize(
    ("trainer", "method", "names"),
    [
        ("DPOTrainer", "_prepare_dataset", ["dataset"]),
        ("SFTTrainer", "training_step", []),
        ("SFTTrainer", "create_model_card", []),
        ("DPOTrainer", "create_model_card", []),
        ("GRPOTrainer", "create_model_card", []),
        ("GRPOTrainer", "evaluate", []),
        ("GRPOTrainer", "_generate_and_score_completions", ["inputs"]),
        ("GRPOTrainer", "__init__", ["rollout_func", "reward_funcs"]),
        ("GRPOTrainer", "log", []),
        ("Trainer", "_load_from_checkpoint", ["resume_from_checkpoint", "model"]),
    ],
)
def test_the_methods_that_are_replaced_or_wrapped_are_there(trainer, method, names):
    module = transformers if trainer == "Trainer" else trl
    found = inspect.signature(getattr(getattr(module, trainer), method)).parameters

    assert set(names) <= set(found)


def test_the_losses_of_dpo_are_those_that_the_trainer_knows():
    source = inspect.getsource(trl.DPOTrainer)

    assert set(re.findall(r'if loss_type == "(\w+)"', source)) == set(LOSS_TYPES)


def test_the_sft_trainer_takes_tokenized_rows_with_labels_as_they_are(sft_flags, start):
    run, data = start(sft_flags())

    trainer = run.method.build_trainer(run, data)

    assert trainer.train_dataset[:]["input_ids"] == data.train[:]["input_ids"]
    assert trainer.train_dataset[:]["labels"] == data.train[:]["labels"]


def test_the_dpo_collator_takes_tokenized_pairs(sft_flags, start):
    run, data = start(sft_flags(), DPO())
    trainer = run.method.build_trainer(run, data)

    (pair,) = data.train.select([0])
    batch = trainer.data_collator([pair])

    chosen = batch["input_ids"][0][batch["attention_mask"][0] == 1]
    assert chosen.tolist() == [*pair["prompt_ids"], *pair["chosen_ids"]]
    assert "ref" not in trainer.model.peft_config  # a fresh adapter is its own reference


def test_the_collator_and_the_fused_head_give_log_probs_of_labels(sft_flags, start):
    run, data = start(sft_flags())
    trainer = run.method.build_trainer(run, data)
    batch = DataCollatorForLanguageModeling(run.tokenizer.pad_token_id)([data.train[0]])

    outputs = trainer.model(**batch, fused_lm_head=True)

    assert outputs.log_probs.shape == outputs.is_top1.shape == outputs.label_mask.shape
    trained = sum(label != -100 for label in data.train[0]["labels"])
    assert int(outputs.label_mask.sum()) == trained
