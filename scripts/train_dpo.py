"""Train a chat model on preferences between the scored replies of multi-turn conversations.

uv run python scripts/train_dpo.py --hf_model_path MODEL --hf_dataset_path DATASET --lora_path SFT
"""

from argparse import Namespace
from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.flags import parse_arguments
from collabllm.logging_utils import configure_logging
from collabllm.training.arguments import add_dpo_arguments, build_parser


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags from the command line and from --config."""
    parser = build_parser("Preference training (DPO) by QLoRA on best against worst.", "DPOConfig")
    add_dpo_arguments(parser)
    return parse_arguments(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one training."""
    args = parse_args(argv)
    configure_logging()
    from collabllm.training.dpo import train_dpo  # torch and trl load here: --help answers at once

    train_dpo(args)


if __name__ == "__main__":
    run_script(main)
