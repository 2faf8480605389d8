"""Train a chat model online, on what the conversations after its replies come to.

uv run python scripts/train_grpo.py --hf_model_path MODEL --hf_dataset_path TASKS --lora_path SFT
"""

from collections.abc import Sequence
from typing import Any

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings_and_rest
from collabllm.training.grpo_settings import GRPOSettings


def parse_args(argv: Sequence[str] | None = None) -> tuple[GRPOSettings, dict[str, Any]]:
    """Read settings, and the fields of TRL's GRPOConfig, from the command line and --config."""
    return parse_settings_and_rest(
        GRPOSettings,
        argv,
        description=str(__doc__).splitlines()[0],
        epilog="Every field of TRL's GRPOConfig is a flag, too, for example --num_generations 8, "
        "--max_completion_length 256, --beta 0.001, --max_steps 100, --output_dir DIR.",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run one training."""
    settings, trainer_fields = parse_args(argv)
    configure_logging()
    from collabllm.training.grpo import train_grpo  # torch and trl load here: --help answers now

    train_grpo(settings, **trainer_fields)


if __name__ == "__main__":
    run_script(main)
