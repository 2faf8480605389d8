"""Merge a LoRA adapter into its 16-bit base model, for serving without PEFT.

uv run python scripts/merge_adapter.py --lora_path outputs/RUN --output_dir merged
"""

from collections.abc import Sequence
from dataclasses import dataclass

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import Settings, parse_settings, setting


@dataclass(kw_only=True)
class MergeSettings(Settings):
    """Which adapter, into what."""

    lora_path: str = setting(help="folder or Hub id of the adapter", metavar="ADAPTER")
    output_dir: str = setting(
        help="folder for the merged model", metavar="DIR", aliases=("--output",)
    )
    hf_model_path: str | None = setting(
        None, "base model; by default what the adapter names", metavar="MODEL"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Merge, and say how far the merged model's logits are from the adapter's."""
    settings = parse_settings(MergeSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.training.merging import merge_adapter  # torch loads here

    report = merge_adapter(settings.lora_path, settings.output_dir, settings.hf_model_path)
    print(f"Merged model: {settings.output_dir}. {report}")


if __name__ == "__main__":
    run_script(main)
