"""The data of a preference training: pairs, tokenized by our own labels, checked and reported."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from collabllm.data_processing.dataset_utils import multiturn_dataset_to_dpo
from collabllm.data_processing.loading import load_multiturn_dataset
from collabllm.data_processing.tokenization import IGNORE_INDEX, tokenize_conversation
from collabllm.training import held_out
from collabllm.training.preflight import Preflight, check_preflight

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class PreferenceData:
    """Tokenized pairs to train on and to hold out, conversations to answer, and the counts."""

    train: Dataset
    eval: Dataset
    eval_rows: Dataset
    samples: list[Any]
    preflight: Preflight
    facts: dict[str, Any]


def prepare_pairs(
    args: argparse.Namespace, tokenizer: "PreTrainedTokenizerBase", quiet: bool = False
) -> PreferenceData:
    """Load, pair, tokenize and check the data, and print the preflight report.

    Raises:
        ValueError: If there are no pairs, or more than 5% of them do not fit into `max_length`.
    """
    dataset = load_multiturn_dataset(args.hf_dataset_path, args.dataset_split)
    sides = multiturn_dataset_to_dpo(
        dataset,
        eval_ratio=args.eval_ratio,
        min_score_gap=args.min_score_gap,
        min_confidence=args.min_confidence,
        system_prompt=args.system_prompt,
        score_column=args.score_column,
        split_by=args.split_by,
    )
    train, preflight = _tokenize(sides["train"], tokenizer, args.max_length)
    if not quiet:
        print(preflight.to_text("preference pairs"))
    check_preflight(preflight, args.max_length, args.allow_truncation)
    held, eval_rows = Dataset.from_list([]), Dataset.from_list([])
    samples: list[Any] = []
    if args.eval_ratio:
        held, report = _tokenize(sides["eval"], tokenizer, args.max_length)
        report.examples.clear()
        if not quiet:
            print(report.to_text("held-out pairs"))
        ranked = held_out.take_evenly(sides["eval"], args.max_eval_pairs)
        eval_rows = held_out.tokenize_pairs(ranked, tokenizer, args.max_length)
        openings = [{"messages": pair["prompt"]} for pair in sides["eval"]]
        samples = held_out.choose_samples(openings, args.num_sample_replies)
    gaps = np.array(sides["train"]["chosen_score"]) - np.array(sides["train"]["rejected_score"])
    facts = {
        "rows": len(dataset),
        "fingerprint": dataset._fingerprint,
        "filter": f"score gap of at least {args.min_score_gap:g}"
        if args.min_confidence is None
        else f"P(chosen is better) of at least {args.min_confidence:g}",
        "training pairs": len(train),
        "median score gap": round(float(np.median(gaps)), 4),
        "pairs lost to max_length": preflight.num_dropped_rows,
        "held-out pairs": len(held),
    }
    return PreferenceData(train, held, eval_rows, samples, preflight, facts)


def _tokenize(
    pairs: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[Dataset, Preflight]:
    """Tokenize pairs as TRL's collator takes them; those that do not fit are dropped and counted.

    Returns:
        Rows with `prompt_ids`, `chosen_ids` and `rejected_ids`, and the counts, in which a pair is
        a row and each of its sides a reply.
    """
    report = Preflight(trained_by_role={"assistant": 0})
    rows = []
    lengths = []
    for pair in pairs:
        context = [{**message, "weight": 0} for message in pair["prompt"]]
        both = {
            side: _split(tokenize_conversation(context + pair[side], tokenizer, max_length))
            for side in ("chosen", "rejected")
        }
        report.num_replies += 2
        if not all(ids for _, ids in both.values()):
            report.num_dropped_rows += 1
            report.num_lost_replies += 2
            continue
        prompt_ids = both["chosen"][0]
        if both["rejected"][0] != prompt_ids:
            raise ValueError(
                "The chat template renders one prompt differently before two replies; use a model "
                "whose template keeps prompts as they are."
            )
        row = {"prompt_ids": prompt_ids}
        for side, (_, ids) in both.items():
            row[f"{side}_ids"] = ids
            report.trained_by_role["assistant"] += len(ids)
            lengths.append(len(prompt_ids) + len(ids))
        rows.append(row)
        if len(report.examples) < 2:
            texts = [str(tokenizer.decode(row[name])) for name in row]
            report.examples.append(f"{texts[0]}<<{texts[1]}>> rather than <<{texts[2]}>>")
    report.num_rows, report.num_tokens = len(rows), sum(lengths)
    for q in (0.0, 0.5, 0.95, 1.0):
        length = int(np.quantile(lengths or [0], q, method="nearest"))
        report.length_quantiles[f"{q:.0%}"] = length
    return Dataset.from_list(rows), report


def _split(tokenized: Any) -> tuple[list[int], list[int]]:
    """Return the ids before the reply and those of the reply; empty where it does not fit."""
    labels = tokenized["labels"]
    trained = [idx for idx, label in enumerate(labels) if label != IGNORE_INDEX]
    if not trained:
        return [], []
    ids = tokenized["input_ids"]
    return ids[: trained[0]], ids[trained[0] : trained[-1] + 1]
