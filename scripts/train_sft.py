"""Fine-tune a chat model on the best-scored replies of multi-turn conversations.

uv run python scripts/train_sft.py --hf_model_path MODEL --hf_dataset_path DATASET
"""

from argparse import Namespace
from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.flags import parse_arguments
from collabllm.logging_utils import configure_logging
from collabllm.training.arguments import add_sft_arguments, build_parser


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags from the command line and from --config."""
    parser = build_parser(
        "Supervised fine-tuning by QLoRA on the best-scored replies.", "SFTConfig"
    )
    add_sft_arguments(parser)
    return parse_arguments(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one training."""
    args = parse_args(argv)
    configure_logging()
    from collabllm.training.sft import train_sft  # torch and trl load here: --help answers at once

    train_sft(args)


if __name__ == "__main__":
    run_script(main)
