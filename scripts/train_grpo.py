"""Train a chat model online, on what the conversations after its replies come to.

uv run python scripts/train_grpo.py --hf_model_path MODEL --hf_dataset_path TASKS --lora_path SFT
"""

from collections.abc import Sequence
from typing import Any

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.training.command_line import parse_training_flags
from collabllm.training.grpo_settings import GRPOSettings


def parse_args(argv: Sequence[str] | None = None) -> tuple[GRPOSettings, dict[str, Any]]:
    """Read settings, and fields of TRL's GRPOConfig, from the command line and from --config."""
    return parse_training_flags(GRPOSettings, "grpo", str(__doc__).splitlines()[0], argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one training."""
    settings, trainer_fields = parse_args(argv)
    configure_logging()
    from collabllm.training.grpo import train_grpo  # torch and trl load here: --help answers now

    train_grpo(settings, **trainer_fields)


if __name__ == "__main__":
    run_script(main)
