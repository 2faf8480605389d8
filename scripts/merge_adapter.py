"""Merge a LoRA adapter into its 16-bit base model, for serving without PEFT.

uv run python scripts/merge_adapter.py --lora_path outputs/RUN --output_dir merged
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags."""
    parser = ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--lora_path", required=True, help="folder or Hub id of the adapter")
    parser.add_argument("--output_dir", required=True, help="folder for the merged model")
    parser.add_argument("--hf_model_path", help="base model; default: what the adapter names")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Merge, and say how far the merged model's logits are from the adapter's."""
    args = parse_args(argv)
    configure_logging()
    from collabllm.training.merging import merge_adapter  # torch loads here

    difference = merge_adapter(args.lora_path, args.output_dir, args.hf_model_path)
    print(f"Merged model: {args.output_dir}. Largest logit difference: {difference:.3g}")


if __name__ == "__main__":
    run_script(main)
