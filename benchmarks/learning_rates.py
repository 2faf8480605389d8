"""Held-out loss and ranking of short SFT runs that differ in the learning rate alone.

uv run python benchmarks/learning_rates.py --hf_dataset_path DATASET --learning_rates 2e-5 2e-4 1e-3
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from collabllm.training import train_sft


def train(learning_rate: float, options: dict[str, Any]) -> dict[str, Any]:
    """Train with one rate and return the run's metrics."""
    with tempfile.TemporaryDirectory() as folder:
        train_sft(
            learning_rate=learning_rate,
            output_dir=folder,
            num_sample_replies=0,
            allow_truncation=True,
            save_strategy="no",
            report_to="none",
            push_to_hub=False,
            **options,
        )
        metrics: dict[str, Any] = json.loads((Path(folder) / "metrics.json").read_text())
        return metrics


def main() -> None:
    """Train once with each rate and print a line each."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--hf_model_path", default="smollm2-135m-instruct")
    parser.add_argument("--hf_dataset_path", default="demo")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[2e-5, 2e-4, 1e-3])
    parser.add_argument("--max_steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--max_length", type=int, default=192)
    parser.add_argument("--max_eval_pairs", type=int, default=12)
    parser.add_argument("--load_in_4bit", action="store_true", help="NF4; slower on a CPU")
    options = vars(parser.parse_args())
    lines = []
    for rate in options.pop("learning_rates"):
        metrics = train(rate, options)
        sides = [metrics[side] for side in ("before", "after")]
        shown = ", ".join(
            f"{name} {sides[0][name]:.3f} -> {sides[1][name]:.3f}"
            for name in ("loss", "token_accuracy", "ranking_accuracy")
            if name in sides[0]
        )
        seconds = metrics["train"]["train_runtime"]
        lines.append(f"{options['hf_dataset_path']}, {rate:g}: {shown}; {seconds:.0f} s")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
