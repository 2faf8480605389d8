"""Flags of the training scripts: few of our own, all of the trainer's, from YAML or by hand."""

import argparse
from typing import get_args

from collabllm.data_processing.dataset_utils import DEFAULT_SYSTEM_PROMPT, Turns
from collabllm.data_processing.loading import BUNDLED_DATASET
from collabllm.flags import start_parser

BUNDLED_MODEL = "smollm2-135m-instruct"


def build_parser(description: str, trainer_config: str) -> argparse.ArgumentParser:
    """Make the parser with the flags that every training script shares.

    Args:
        description: For `--help`.
        trainer_config: Name of the TRL config whose fields are flags, too.
    """
    parser = start_parser(
        description,
        f"Every field of TRL's {trainer_config} is a flag, too, for example "
        "--max_steps 100, --output_dir DIR, --report_to none, --resume_from_checkpoint true.",
    )
    add = parser.add_argument
    add(
        "--hf_model_path",
        default=BUNDLED_MODEL,
        metavar="MODEL",
        help="Hub id, local folder, or the bundled model",
    )
    add(
        "--hf_dataset_path",
        default=BUNDLED_DATASET,
        metavar="DATASET",
        help="Hub id, saved folder, .jsonl, .json or .parquet file, or the bundled dataset",
    )
    add("--dataset_split", default="train", help="split to take of a Hub dataset")
    add("--output_name_tag", default="run", metavar="TAG", help="part of the run's name")
    add("--learning_rate", type=float, default=2e-5, help="peak learning rate")
    add("--batch_size", type=int, default=4, help="rows a device and step")
    add("--max_length", type=int, default=4096, help="most tokens of a row; late turns are cut")
    add(
        "--system_prompt",
        default=DEFAULT_SYSTEM_PROMPT,
        metavar="TEXT",
        help='system message of every conversation that has none; "" for none',
    )
    add("--score_column", default="score", help="column to rank by, dotted into dicts")
    add("--eval_ratio", type=float, default=0.1, help="share of tasks held out, in [0, 1)")
    add(
        "--max_eval_pairs",
        type=int,
        default=500,
        help="most held-out turns to rank best against worst in, before and after",
    )
    add("--split_by", default="single_turn_prompt", help="column that names a row's task")
    add("--lora_r", type=int, default=16, help="rank of the adapter")
    add("--lora_alpha", type=int, default=16, help="scale of the adapter")
    add("--lora_dropout", type=float, default=0.1, help="dropout of the adapter")
    add("--no_4bit", action="store_true", help="keep the base model in 16 or 32 bit")
    add(
        "--allow_truncation", action="store_true", help="train although over 5%% of replies are cut"
    )
    add(
        "--push_to_hub",
        choices=("auto", "true", "false"),
        default="auto",
        help="push the adapter to a private repository; auto: when a token is found",
    )
    add("--parse_secrets_runpod", action="store_true", help="take tokens from RunPod's secrets")
    add(
        "--num_sample_replies",
        type=int,
        default=2,
        help="held-out conversations to answer before and after training",
    )
    return parser


def add_sft_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only supervised fine-tuning has."""
    parser.add_argument(
        "--lower_bound_metric", type=float, default=0.0, help="lowest score of a reply to train on"
    )
    parser.add_argument(
        "--lower_bound_percentile",
        type=float,
        default=None,
        help="instead: this percentile of the best scores, in [0, 100]",
    )
    parser.add_argument(
        "--turns",
        choices=get_args(Turns),
        default="merged",
        help="one row a conversation, one row every turn, or each conversation's last turn only",
    )


def add_dpo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only preference training has."""
    parser.add_argument(
        "--lora_path", help="SFT adapter to start from, which is then the reference, too"
    )
    parser.add_argument(
        "--min_score_gap", type=float, default=0.0, help="smallest score gap of a pair"
    )
    parser.add_argument(
        "--min_confidence",
        type=float,
        help="instead: smallest P(chosen is better), from the rewards of the sampled futures",
    )
    parser.set_defaults(learning_rate=5e-6)
