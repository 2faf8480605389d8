"""Preference training (DPO) by QLoRA on the best against the worst reply of every turn."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from collabllm.data_processing.dataset_utils import multiturn_dataset_to_dpo
from collabllm.training import held_out
from collabllm.training.callbacks import KeepRandomState, SaveWithoutReference
from collabllm.training.data import (
    TrainingData,
    conversion,
    load_rows,
    take_evenly,
    weigh_rows,
)
from collabllm.training.method import Method, Scores
from collabllm.training.run import Run, run_training
from collabllm.training.schedule import describe_steps
from collabllm.training.settings import DPOSettings
from collabllm.training.tokenizing import to_ranked_rows, tokenize_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

LOSS_TYPES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
"""Those of TRL's trainer, which looks at their names in the first step."""


def train_dpo(settings: DPOSettings | None = None, **arguments: Any) -> Path:
    """Train a model on preferences; leave what `train_sft` leaves.

    The policy starts from the base model, or from the adapter in `lora_path`; the reference is
    what it starts from.

    Args:
        settings: Settings of the run; the defaults where None.
        arguments: Fields of `DPOSettings` and of TRL's `DPOConfig` by name; they win.

    Returns:
        The output folder.

    Raises:
        ValueError: If a setting, the data or the model does not fit; before any weights load.
        KeyboardInterrupt: After Ctrl-C; the text says what is kept and how to go on.
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    return run_training(DPO(), settings, arguments)


class _Trainer(KeepRandomState, SaveWithoutReference, DPOTrainer):
    """TRL's trainer on pairs that are tokenized already, by our own labels."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Take tokenized pairs as they are; TRL would tokenize texts here."""
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `card.write_card` does, when the run is over."""


class DPO(Method):
    """The best against the worst reply of every turn."""

    name = "dpo"
    config_class = DPOConfig
    settings_class = DPOSettings
    made_by = "by preference (DPO) on the best against the worst replies of"

    def __init__(self) -> None:
        """Start without scores of the reference."""
        self._reference: held_out.Sums | None = None

    def check(self, settings: DPOSettings, config: Any) -> None:
        """Refuse what TRL finds in the first step only, or never."""
        if config.beta < 0:
            raise ValueError(
                f"beta must not be negative, got {config.beta:g}: it weighs the reference."
            )
        unknown = [name for name in config.loss_type if name not in LOSS_TYPES]
        if unknown:
            raise ValueError(
                f"loss_type {unknown[0]!r} is not known; there are {', '.join(LOSS_TYPES)}."
            )

    def prepare_data(
        self, settings: DPOSettings, tokenizer: "PreTrainedTokenizerBase", config: Any
    ) -> TrainingData:
        """Pair, tokenize and check the data, and print the preflight report."""
        dataset = load_rows(settings)
        sides = multiturn_dataset_to_dpo(
            dataset,
            min_score_gap=settings.min_score_gap,
            min_confidence=settings.min_confidence,
            **conversion(settings),
        )
        chosen = weigh_rows(sides["train"], settings.dataset_weights)
        train, report = tokenize_pairs(chosen, tokenizer, settings.max_length)
        report.notes.append(describe_steps(len(train), config))
        print(report.to_text("training"))
        report.check(settings.max_length, settings.allow_truncation)
        gaps = np.array(sides["train"]["chosen_score"]) - np.array(sides["train"]["rejected_score"])
        facts = {
            "rows": len(dataset),
            "fingerprint": dataset._fingerprint,
            "filter": f"score gap of at least {settings.min_score_gap:g}"
            if settings.min_confidence is None
            else f"P(chosen is better) of at least {settings.min_confidence:g}",
            "training pairs": len(train),
            "median score gap": round(float(np.median(gaps)), 4),
            "pairs lost to max_length": report.num_lost,
        }
        data = TrainingData(train, report, facts)
        if settings.eval_ratio:
            data.eval, held = tokenize_pairs(sides["eval"], tokenizer, settings.max_length)
            held.examples.clear()
            print(held.to_text("held out"))
            data.ranked = to_ranked_rows(take_evenly(data.eval, settings.max_eval_pairs))
            openings = [{"messages": pair["prompt"]} for pair in sides["eval"]]
            data.samples = held_out.choose_samples(openings, settings.num_sample_replies)
        data.facts["held-out pairs"] = len(data.eval)
        return data

    def build_trainer(self, run: Run, data: TrainingData) -> "Trainer":
        """Put TRL's trainer around the model; it keeps a frozen copy of a loaded adapter."""
        return run.build_trainer(
            _Trainer,
            data.facts,
            train_dataset=data.train,
            eval_dataset=data.eval if len(data.eval) else None,
        )

    def score(self, trainer: "Trainer", data: TrainingData) -> Scores:
        """Measure ranking accuracy, reward accuracy and margin."""
        if not len(data.ranked):
            return {}
        sums = held_out.score_rows(trainer, data.ranked, "Held-out pairs")
        if self._reference is None:  # before training the policy is the reference
            self._reference = sums
        beta = float(trainer.args.beta)
        compared = held_out.compare_with_reference(sums, self._reference, beta)
        return {**held_out.rank_pairs(sums), **compared}
