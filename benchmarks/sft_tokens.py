"""Tokens and time of one epoch: one row per turn, one row per conversation, packed.

uv run python benchmarks/sft_tokens.py DATASET MODEL [--num_conversations N]
"""

import argparse
import tempfile
import time
from dataclasses import dataclass

from datasets import Dataset
from rich.console import Console
from rich.table import Table

from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.logging_utils import configure_logging


@dataclass
class Result:
    """One way of making rows."""

    name: str
    num_rows: int
    num_tokens: int
    num_trained_tokens: int
    seconds: float


def main() -> None:
    """Measure the three ways in one run and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--num_conversations", type=int, help="take only the first N")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--max_length", type=int, default=4096)
    parser.add_argument("--no_training", action="store_true", help="count tokens only")
    args = parser.parse_args()
    configure_logging()
    dataset = load_multiturn_dataset(args.dataset)
    if args.num_conversations:
        first = sorted(set(dataset["conv_id"]))[: args.num_conversations]
        dataset = dataset.filter(lambda row: row["conv_id"] in first)
    results = [
        measure(dataset, args, "every", False),
        measure(dataset, args, "merged", False),
        measure(dataset, args, "merged", True),
    ]
    table = Table(title=f"{args.dataset}, one epoch")
    for column in ("rows", "number", "tokens read", "trained", "seconds", "fewer tokens", "faster"):
        table.add_column(column, justify="left" if column == "rows" else "right")
    for result in results:
        table.add_row(
            result.name,
            f"{result.num_rows:,}",
            f"{result.num_tokens:,}",
            f"{result.num_trained_tokens:,}",
            f"{result.seconds:.1f}",
            f"{results[0].num_tokens / result.num_tokens:.1f}x",
            f"{results[0].seconds / result.seconds:.1f}x" if result.seconds else "",
        )
    Console().print(table)


def measure(dataset: Dataset, args: argparse.Namespace, turns: str, packing: bool) -> Result:
    """Tokenize, then train one epoch with fresh weights; the clock runs during training alone."""
    import torch
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from collabllm.models import load_base_model, load_tokenizer
    from collabllm.training.settings import DEFAULT_TARGETS
    from collabllm.training.tokenizing import tokenize_rows

    tokenizer = load_tokenizer(args.model)
    rows = multiturn_dataset_to_sft(dataset, turns=turns)["train"]
    tokenized, report = tokenize_rows(rows, tokenizer, args.max_length)
    seconds = 0.0
    if not args.no_training:
        with tempfile.TemporaryDirectory() as folder:
            config = SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=args.batch_size,
                num_train_epochs=1,
                max_length=args.max_length,
                packing=packing,
                report_to="none",
                save_strategy="no",
                gradient_checkpointing=False,
                bf16=torch.cuda.is_available(),
                use_cpu=not torch.cuda.is_available(),
            )
            trainer = SFTTrainer(
                model=load_base_model(args.model, use_4bit=True),
                args=config,
                train_dataset=tokenized,
                processing_class=tokenizer,
                peft_config=LoraConfig(target_modules=list(DEFAULT_TARGETS), task_type="CAUSAL_LM"),
            )
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
    name = turns + (" + packing" if packing else "")
    return Result(name, len(tokenized), report.num_tokens, report.num_trained_tokens, seconds)


if __name__ == "__main__":
    main()
