"""Tokens a second and peak memory of a training run, beside plain TRL on the same conversations.

Ours trains once a conversation on all its kept replies; plain TRL, with its defaults, once a turn.
Both learn the same replies on the same layers. Random weights of any size; nothing is downloaded.

uv run python benchmarks/train_throughput.py --size 135m --steps 6 --data DATASET --dtype float32
uv run python benchmarks/train_throughput.py --size 1b --steps 20      # a GPU
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.models import choose_dtype, load_base_model, load_tokenizer
from collabllm.training.settings import DEFAULT_TARGETS

SIZES = {  # hidden, intermediate, layers, heads, key-value heads
    "tiny": (64, 128, 2, 4, 2),
    "135m": (576, 1536, 30, 9, 3),
    "1b": (2048, 8192, 16, 32, 8),
    "8b": (4096, 14336, 32, 32, 8),
}


def save_random_model(size: str, folder: Path, tokenizer: Any) -> None:
    """Save a Llama of the size with random weights and the bundled tokenizer."""
    hidden, intermediate, layers, heads, kv_heads = SIZES[size]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(folder)


def train_ours(model: str, args: argparse.Namespace) -> dict[str, float]:
    """Train through `train_sft`'s own path, without its evaluation."""
    from collabllm.training.settings import SFTSettings
    from collabllm.training.sft import SFT
    from collabllm.training.start import start_run

    settings = SFTSettings(
        hf_model_path=model,
        hf_dataset_path=[args.data],
        load_in_4bit=not args.no_4bit,
        dtype=args.dtype,
        eval_ratio=0,
        batch_size=args.batch_size,
        push_to_hub="false",
    )
    fields = {"max_steps": args.steps, "report_to": "none", "save_strategy": "no"}
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(SFT(), settings, {**fields, "output_dir": folder})
        prepared = run.method.prepare_data(run.settings, run.tokenizer, run.config)
        return measure(run.method.build_trainer(run, prepared), args.steps)


def train_plain(model: str, args: argparse.Namespace) -> dict[str, float]:
    """Train by TRL with its defaults: one row per turn, the loss on the completion."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = multiturn_dataset_to_sft(load_multiturn_dataset(args.data), turns="every")["train"]
    rows = rows.map(
        lambda row: {
            "prompt": [{"role": m["role"], "content": m["content"]} for m in row["messages"][:-1]],
            "completion": [{"role": "assistant", "content": row["messages"][-1]["content"]}],
        },
        remove_columns=rows.column_names,
    )
    on_gpu = torch.cuda.is_available()
    dtype = choose_dtype() if args.dtype == "auto" else getattr(torch, args.dtype)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=args.steps,
            per_device_train_batch_size=args.batch_size,
            report_to="none",
            save_strategy="no",
            use_cpu=not on_gpu,
            bf16=dtype == torch.bfloat16,
            max_length=4096,
        )
        trainer = SFTTrainer(
            model=load_base_model(model, use_4bit=not args.no_4bit, dtype=dtype),
            args=config,
            train_dataset=rows,
            processing_class=load_tokenizer(model),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM", r=16, target_modules=list(DEFAULT_TARGETS)
            ),
        )
        return measure(trainer, args.steps)


def measure(trainer: Any, steps: int) -> dict[str, float]:
    """Train, and count what was read, what had a loss, and the time; the first step is left out."""
    counts = {"tokens": 0, "trained": 0, "padding": 0}
    times: list[tuple[float, float]] = []  # by the clock, of the processor
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if times:
            ids = inputs["input_ids"]
            read = int(inputs.get("attention_mask", torch.ones_like(ids)).sum())
            counts["tokens"] += read
            counts["padding"] += ids.numel() - read
            counts["trained"] += int((inputs["labels"] != -100).sum())
        result = step(model, inputs, *args, **kwargs)
        times.append((time.monotonic(), time.process_time()))
        return result

    trainer.training_step = counted
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    seconds, processor_s = (last - first for first, last in zip(times[0], times[-1], strict=True))
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if torch.cuda.is_available()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    return {
        "tokens/s": counts["tokens"] / seconds,
        "trained tokens/s": counts["trained"] / seconds,
        "trained tokens/processor s": counts["trained"] / processor_s,
        "padding": counts["padding"] / (counts["padding"] + counts["tokens"]),
        "s/step": seconds / max(steps - 1, 1),
        "peak GiB": peak,
    }


def main() -> None:
    """Measure one way or, by default, both."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="135m")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--no_4bit", action="store_true", help="the base model without NF4")
    parser.add_argument("--only", choices=("ours", "plain"), help="one way, for its peak memory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(args.size, Path(folder), load_tokenizer("smollm2-135m-instruct"))
        ways = {"ours": train_ours, "plain": train_plain}
        found = {
            name: train(folder, args) for name, train in ways.items() if args.only in (None, name)
        }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    kind = args.dtype if args.no_4bit else f"NF4 {args.dtype}"
    print(f"\n{args.size}, {kind}, batch {args.batch_size}, {args.steps} steps, {device}")
    for name, values in found.items():
        print(f"{name:>6}  " + "  ".join(f"{key} {value:.3g}" for key, value in values.items()))
    print("Peak memory of a CPU is that of the process: measure each way alone, by --only.")


if __name__ == "__main__":
    main()
