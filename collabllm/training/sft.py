"""Supervised fine-tuning by QLoRA on the best-scored replies of multi-turn conversations."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from trl import SFTConfig, SFTTrainer, pack_dataset

from collabllm.data_processing.dataset_utils import (
    multiturn_dataset_to_dpo,
    multiturn_dataset_to_sft,
)
from collabllm.data_processing.selection import select_replies
from collabllm.data_processing.tokenization import HistoryChangesError
from collabllm.training import held_out
from collabllm.training.callbacks import KeepRandomState
from collabllm.training.data import (
    TrainingData,
    conversion,
    load_rows,
    take_evenly,
    weigh_rows,
)
from collabllm.training.method import Method, Scores
from collabllm.training.preflight import Preflight
from collabllm.training.run import Run, run_training
from collabllm.training.schedule import describe_steps
from collabllm.training.settings import SFTSettings
from collabllm.training.tokenizing import (
    check_first_tokens,
    no_rows,
    to_ranked_rows,
    tokenize_pairs,
    tokenize_rows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

logger = logging.getLogger(__name__)


def train_sft(settings: SFTSettings | None = None, **arguments: Any) -> Path:
    """Fine-tune a model, and leave adapter, card, configuration and metrics.

    Args:
        settings: Settings of the run; the defaults where None.
        arguments: Fields of `SFTSettings` and of TRL's `SFTConfig` by name; they win.

    Returns:
        The output folder.

    Raises:
        ValueError: If a setting, the data or the model does not fit; before any weights load.
        KeyboardInterrupt: After Ctrl-C; the text says what is kept and how to go on.
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    return run_training(SFT(), settings, arguments)


class _Trainer(KeepRandomState, SFTTrainer):
    """TRL's trainer, with weighted first tokens, untouched evaluation and a card of our own."""

    first_token_weight = 1.0

    def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute TRL's loss, in training from weighted log-probabilities."""
        if self.first_token_weight == 1 or not self.model.training:
            return super().compute_loss(model, *args, **kwargs)
        hook = self.model.register_forward_hook(self._weigh)
        try:
            return super().compute_loss(model, *args, **kwargs)
        finally:
            hook.remove()

    def _weigh(self, _: Any, __: Any, outputs: Any) -> None:
        """Weigh each reply's first token; the loss is still divided by the number of tokens."""
        is_first = outputs.label_mask.clone()
        is_first[:, 1:] &= ~outputs.label_mask[:, :-1]
        outputs.log_probs = outputs.log_probs * torch.where(is_first, self.first_token_weight, 1.0)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `card.write_card` does, when the run is over."""


class SFT(Method):
    """The best-scored reply of every turn, one row per conversation."""

    name = "sft"
    config_class = SFTConfig
    settings_class = SFTSettings
    made_by = "on the best-scored replies of"

    def check(self, settings: SFTSettings, config: Any) -> None:
        """Refuse what TRL would find when the weights have loaded."""
        if config.assistant_only_loss:
            raise ValueError(
                "assistant_only_loss is for TRL's own tokenizing: the loss is on replies alone "
                "here, always. Leave it out."
            )
        if config.padding_free and not config.packing:
            raise ValueError(
                "padding_free does not keep to max_length without packing. Give --packing true, "
                "or leave it out."
            )
        if settings.first_token_weight != 1 and (
            config.loss_type != "nll" or config.label_smoothing_factor
        ):
            raise ValueError(
                "--first_token_weight needs --loss_type nll without --label_smoothing_factor."
            )

    def prepare_data(
        self, settings: SFTSettings, tokenizer: "PreTrainedTokenizerBase", config: Any
    ) -> TrainingData:
        """Keep the best replies, tokenize them, and print the preflight report."""
        if settings.first_token_weight != 1:
            remedy = "train another template by --chat_template_path"
            check_first_tokens(tokenizer, "--first_token_weight", remedy)
        dataset = load_rows(settings)
        turns, rows, train, report = _tokenize(dataset, settings, tokenizer)
        steps = describe_steps(_count_packed(train, config), config)
        report.notes += [_describe_scores(dataset, settings), steps]
        print(report.to_text("training"))
        report.check(settings.max_length, settings.allow_truncation)
        data = TrainingData(train, report, _facts(dataset, settings, turns, report))
        if settings.eval_ratio:
            some = take_evenly(rows["eval"], settings.max_eval_pairs or len(rows["eval"]))
            data.eval, held = tokenize_rows(some, tokenizer, settings.max_length)
            held.examples.clear()
            print(held.to_text("held out"))
            data.ranked = _rank(dataset, settings, tokenizer)
            data.samples = held_out.choose_samples(
                rows["eval"].to_list(), settings.num_sample_replies
            )
        data.facts["held-out rows"] = len(data.eval)
        return data

    def build_trainer(self, run: Run, data: TrainingData) -> "Trainer":
        """Put TRL's trainer around the model."""
        trainer = run.build_trainer(
            _Trainer,
            data.facts,
            train_dataset=data.train,
            eval_dataset=data.eval if len(data.eval) else None,
        )
        trainer.first_token_weight = run.settings.first_token_weight
        if not run.sharding.kind:
            trainer.ranked_rows = data.ranked
        return trainer

    def score(self, trainer: "Trainer", data: TrainingData) -> Scores:
        """Measure loss, token accuracy and ranking accuracy."""
        if not len(data.eval):
            return {}
        return held_out.score_held_out(trainer, data.eval, data.ranked)


def _count_packed(train: Dataset, config: Any) -> int:
    """Count the rows that batches take: several conversations are one where they are packed."""
    if not (config.packing and len(train)):
        return len(train)
    return len(pack_dataset(train, config.max_length, config.packing_strategy))


def _tokenize(
    dataset: Dataset, settings: SFTSettings, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[str, DatasetDict, Dataset, Preflight]:
    """Convert and tokenize; a row per turn where a template shows a reply differently later on."""
    turns = settings.turns
    while True:
        rows = multiturn_dataset_to_sft(
            dataset,
            lower_bound_metric=settings.lower_bound_metric,
            lower_bound_percentile=settings.lower_bound_percentile,
            turns=turns,
            **conversion(settings),
        )
        try:
            train = weigh_rows(rows["train"], settings.dataset_weights)
            return turns, rows, *tokenize_rows(train, tokenizer, settings.max_length)
        except HistoryChangesError:
            if turns == "every":
                raise
            logger.info(
                "One row a turn (--turns every): the chat template shows a reply differently once "
                "the conversation goes on, and inference never sees the other form."
            )
            turns = "every"


def _rank(dataset: Dataset, settings: SFTSettings, tokenizer: "PreTrainedTokenizerBase") -> Dataset:
    """Tokenize best against worst of the held-out turns; empty where there are no pairs."""
    try:
        pairs = multiturn_dataset_to_dpo(dataset, **conversion(settings))["eval"]
    except ValueError as error:
        logger.info("No ranking accuracy: %s", error)
        return no_rows()
    pairs = take_evenly(pairs, settings.max_eval_pairs)
    tokenized, report = tokenize_pairs(pairs, tokenizer, settings.max_length)
    if report.num_lost:
        logger.info("%d held-out pairs exceed max_length.", report.num_lost)
    return to_ranked_rows(tokenized)


def _describe_scores(dataset: Dataset, settings: SFTSettings) -> str:
    """Say what scores the best replies have, and what a threshold would keep."""
    selection = select_replies(dataset, settings.score_column, None, None, settings.split_by)
    scores = np.array([reply.score for turns in selection.conversations for reply in turns])
    shown = ", ".join(f"{q}% {np.percentile(scores, q):.3g}" for q in (0, 25, 50, 75, 100))
    quarter = np.percentile(scores, 25)
    return (
        f"scores of the best replies: {shown}; --lower_bound_metric {quarter:.3g} keeps "
        f"{(scores >= quarter).mean():.0%} of them, --lower_bound_percentile 50 the better half"
    )


def _facts(
    dataset: Dataset, settings: SFTSettings, turns: str, report: Preflight
) -> dict[str, Any]:
    if settings.lower_bound_percentile is not None:
        kept = f"{settings.score_column} in the top {100 - settings.lower_bound_percentile:g}%"
    elif settings.lower_bound_metric is not None:
        kept = f"{settings.score_column} >= {settings.lower_bound_metric:g}"
    else:
        kept = "none: the best reply of every turn"
    return {
        "rows": len(dataset),
        "fingerprint": dataset._fingerprint,
        "filter": kept,
        "turns": turns,
        "training rows": report.num_rows,
        "training replies": report.num_items - report.num_lost,
        "trained tokens": report.num_trained_tokens,
        "replies lost to max_length": report.num_lost,
    }
