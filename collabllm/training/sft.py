"""Supervised fine-tuning by QLoRA on the best-scored replies of multi-turn conversations."""

import argparse
from pathlib import Path
from typing import Any

from accelerate import PartialState
from trl import SFTConfig, SFTTrainer

from collabllm.training import held_out
from collabllm.training.adapters import build_lora_config
from collabllm.training.callbacks import KeepRandomState
from collabllm.training.run import Run, execute, keep_float32, start_run
from collabllm.training.sft_data import TrainingData, prepare_data


class _Trainer(KeepRandomState, SFTTrainer):
    """TRL's trainer, with evaluation that leaves training untouched and a card of our own."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `artifacts.write_card` does, when the run is over."""


def train_sft(args: argparse.Namespace) -> Path:
    """Fine-tune a model as the flags say, and leave adapter, card, configuration and metrics.

    Args:
        args: From `arguments.parse_arguments`.

    Returns:
        The output folder.

    Raises:
        ValueError: If a flag, the data or the model does not fit; before any weights load.
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    run = start_run(args, SFTConfig, "sft")
    with PartialState().main_process_first():
        data = prepare_data(run.args, run.tokenizer, quiet=not run.is_main)
    trainer = build_trainer(run, data)

    def score() -> dict[str, float]:
        if not len(data.eval):
            return {}
        return held_out.score_held_out(trainer, data.eval, data.pairs)

    return execute(trainer, run, data.preflight, data.facts, data.samples, score)


def build_trainer(run: Run, data: TrainingData) -> _Trainer:
    """Load the base model and put a fresh adapter and the trainer around it."""
    trainer = _Trainer(
        model=run.load_model(),
        args=run.config,
        train_dataset=data.train,
        eval_dataset=data.eval if len(data.eval) else None,
        processing_class=run.tokenizer,
        peft_config=build_lora_config(run.args),
        callbacks=[run.log_facts(data.facts)],
    )
    if not run.sharded:  # FSDP needs one type for all
        keep_float32(trainer.model)
    return trainer
