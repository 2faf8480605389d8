"""Preference training (DPO) by QLoRA on the best against the worst reply of every turn."""

import argparse
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from collabllm.models import load_adapter
from collabllm.training import held_out
from collabllm.training.adapters import build_lora_config
from collabllm.training.callbacks import KeepRandomState
from collabllm.training.dpo_data import PreferenceData, prepare_pairs
from collabllm.training.run import Run, execute, keep_float32, start_run


class _Trainer(KeepRandomState, DPOTrainer):
    """TRL's trainer on pairs that are tokenized already, by our own labels."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Take tokenized pairs as they are; TRL would tokenize texts here."""
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `artifacts.write_card` does, when the run is over."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as the trainer does, without the frozen copy of the adapter in the final folder."""
        super().save_model(output_dir, _internal_call)
        reference = Path(output_dir or self.args.output_dir) / "ref"
        if not _internal_call and self.is_world_process_zero() and reference.is_dir():
            for file in reference.iterdir():
                file.unlink()
            reference.rmdir()


def train_dpo(args: argparse.Namespace) -> Path:
    """Train a model on preferences as the flags say; leave what `train_sft` leaves.

    The policy starts from the base model, or from the SFT adapter in `lora_path`; the reference is
    what it starts from.

    Args:
        args: From `arguments.parse_arguments`.

    Returns:
        The output folder.

    Raises:
        ValueError: If a flag, the data or the model does not fit; before any weights load.
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    run = start_run(args, DPOConfig, "dpo")
    with PartialState().main_process_first():
        data = prepare_pairs(run.args, run.tokenizer, quiet=not run.is_main)
    trainer = build_trainer(run, data)
    reference: list[held_out.Sums] = []

    def score() -> dict[str, float]:
        if not len(data.eval_rows):
            return {}
        sums = held_out.score_rows(trainer, data.eval_rows, "Held-out pairs")
        reference.append(sums)  # before training the policy is the reference
        compared = held_out.compare_with_reference(sums, reference[0], run.config.beta)
        return {**held_out.rank_pairs(sums), **compared}

    return execute(trainer, run, data.preflight, data.facts, data.samples, score)


def build_trainer(run: Run, data: PreferenceData) -> _Trainer:
    """Load the base model, put a fresh or a trained adapter on it, and the trainer around it."""
    model: Any = run.load_model()
    peft_config = None
    if run.args.lora_path:
        # TRL keeps a frozen copy of a loaded adapter as the reference.
        model = load_adapter(model, run.args.lora_path, trainable=True)
    else:
        peft_config = build_lora_config(run.args)
    trainer = _Trainer(
        model=model,
        args=run.config,
        train_dataset=data.train,
        eval_dataset=data.eval if len(data.eval) else None,
        processing_class=run.tokenizer,
        peft_config=peft_config,
        callbacks=[run.log_facts(data.facts)],
    )
    if not run.sharded:  # FSDP needs one type for all
        keep_float32(trainer.model)
    return trainer
