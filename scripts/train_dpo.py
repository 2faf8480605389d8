"""Train a chat model on preferences between the scored replies of multi-turn conversations.

uv run python scripts/train_dpo.py --hf_model_path MODEL --hf_dataset_path DATASET --lora_path SFT
"""

from collections.abc import Sequence
from typing import Any

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.training.command_line import parse_training_flags
from collabllm.training.settings import DPOSettings


def parse_args(argv: Sequence[str] | None = None) -> tuple[DPOSettings, dict[str, Any]]:
    """Read settings, and the fields of TRL's DPOConfig, from the command line and from --config."""
    return parse_training_flags(DPOSettings, "dpo", str(__doc__).splitlines()[0], argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one training."""
    settings, trainer_fields = parse_args(argv)
    configure_logging()
    from collabllm.training.dpo import train_dpo  # torch and trl load here: --help answers at once

    train_dpo(settings, **trainer_fields)


if __name__ == "__main__":
    run_script(main)
