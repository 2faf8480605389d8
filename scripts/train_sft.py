"""Fine-tune a chat model on the best-scored replies of multi-turn conversations.

uv run python scripts/train_sft.py --hf_model_path MODEL --hf_dataset_path DATASET
"""

from collections.abc import Sequence
from typing import Any

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.training.command_line import parse_training_flags
from collabllm.training.settings import SFTSettings


def parse_args(argv: Sequence[str] | None = None) -> tuple[SFTSettings, dict[str, Any]]:
    """Read settings, and the fields of TRL's SFTConfig, from the command line and from --config."""
    return parse_training_flags(SFTSettings, "sft", str(__doc__).splitlines()[0], argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one training."""
    settings, trainer_fields = parse_args(argv)
    configure_logging()
    from collabllm.training.sft import train_sft  # torch and trl load here: --help answers at once

    train_sft(settings, **trainer_fields)


if __name__ == "__main__":
    run_script(main)
