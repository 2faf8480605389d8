"""The data of a fine-tuning run: loaded, converted, tokenized, checked and reported."""

import argparse
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from collabllm.data_processing.dataset_utils import (
    multiturn_dataset_to_dpo,
    multiturn_dataset_to_sft,
)
from collabllm.data_processing.loading import load_multiturn_dataset
from collabllm.training import held_out
from collabllm.training.preflight import Preflight, check_preflight, tokenize_split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass
class TrainingData:
    """Tokenized rows, held-out pairs, conversations to answer, and what preflight found."""

    train: Dataset
    eval: Dataset
    pairs: Dataset
    samples: list[Any]
    preflight: Preflight
    facts: dict[str, Any]


def prepare_data(
    args: argparse.Namespace, tokenizer: "PreTrainedTokenizerBase", quiet: bool = False
) -> TrainingData:
    """Load, convert, tokenize and check the data, and print the preflight report."""
    dataset = load_multiturn_dataset(args.hf_dataset_path, args.dataset_split)
    shared = {
        "eval_ratio": args.eval_ratio,
        "system_prompt": args.system_prompt,
        "score_column": args.score_column,
        "split_by": args.split_by,
    }
    rows = multiturn_dataset_to_sft(
        dataset,
        lower_bound_metric=args.lower_bound_metric,
        lower_bound_percentile=args.lower_bound_percentile,
        turns=args.turns,
        **shared,
    )
    train, report = tokenize_split(rows["train"], tokenizer, args.max_length)
    if not quiet:
        print(report.to_text("training"))
    check_preflight(report, args.max_length, args.allow_truncation)
    held, pairs = Dataset.from_list([]), Dataset.from_list([])
    samples: list[Any] = []
    if args.eval_ratio:
        held, held_report = tokenize_split(rows["eval"], tokenizer, args.max_length)
        held_report.examples.clear()
        if not quiet:
            print(held_report.to_text("held out"))
        pairs = _held_out_pairs(dataset, tokenizer, args, shared)
        samples = held_out.choose_samples(rows["eval"].to_list(), args.num_sample_replies)
    facts = {
        "rows": len(dataset),
        "fingerprint": dataset._fingerprint,
        "filter": f"{args.score_column} >= {args.lower_bound_metric}"
        if args.lower_bound_percentile is None
        else f"{args.score_column} in the top {100 - args.lower_bound_percentile:g}%",
        "turns": args.turns,
        "training rows": report.num_rows,
        "training replies": report.num_replies - report.num_lost_replies,
        "trained tokens": report.num_trained_tokens,
        "replies lost to max_length": report.num_lost_replies,
        "held-out rows": len(held),
    }
    return TrainingData(train, held, pairs, samples, report, facts)


def _held_out_pairs(
    dataset: Dataset,
    tokenizer: "PreTrainedTokenizerBase",
    args: argparse.Namespace,
    shared: dict[str, Any],
) -> Dataset:
    try:
        pairs = multiturn_dataset_to_dpo(dataset, **shared)["eval"]
    except ValueError as error:
        logger.info("No ranking accuracy: %s", error)
        return Dataset.from_list([])
    pairs = held_out.take_evenly(pairs, args.max_eval_pairs)
    return held_out.tokenize_pairs(pairs, tokenizer, args.max_length)
