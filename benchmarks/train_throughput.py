"""Tokens a second and peak memory of a training run, beside plain TRL on the same conversations.

Ours trains once a conversation on all its kept replies; plain TRL, with its defaults, once a turn.
Both learn the same replies, on the same model in the same precision and attention, with the same
adapter, batch size and checkpointing; each in a process of its own. TRL rounds the adapter on NF4
to bf16, ours stays in float32. Random weights of any size; nothing is downloaded.

uv run python benchmarks/train_throughput.py --size 135m --steps 6 --data DATASET --dtype float32
uv run python benchmarks/train_throughput.py --size 1b --batch_size 8 --steps 25      # a GPU
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.models import choose_dtype, load_base_model, load_tokenizer
from collabllm.training.adapters import build_lora_config
from collabllm.training.settings import SFTSettings

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


def train_ours(settings: SFTSettings, steps: int) -> dict[str, float]:
    """Train through `train_sft`'s own path, without its evaluation."""
    from collabllm.training.sft import SFT
    from collabllm.training.start import start_run

    fields = {"max_steps": steps, "report_to": "none", "save_strategy": "no"}
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(SFT(), settings, {**fields, "output_dir": folder})
        prepared = run.method.prepare_data(run.settings, run.tokenizer, run.config)
        return measure(run.method.build_trainer(run, prepared), steps)


def train_plain(settings: SFTSettings, steps: int) -> dict[str, float]:
    """Train by TRL with its defaults: one row per turn, the loss on the completion."""
    from trl import SFTConfig, SFTTrainer

    dataset = load_multiturn_dataset(settings.hf_dataset_path[0])
    rows = multiturn_dataset_to_sft(dataset, turns="every")["train"]
    rows = rows.map(
        lambda row: {
            "prompt": [{"role": m["role"], "content": m["content"]} for m in row["messages"][:-1]],
            "completion": [{"role": "assistant", "content": row["messages"][-1]["content"]}],
        },
        remove_columns=rows.column_names,
    )
    on_gpu = torch.cuda.is_available()
    dtype = getattr(torch, settings.dtype)
    model = load_base_model(settings.hf_model_path, use_4bit=settings.load_in_4bit, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            report_to="none",
            save_strategy="no",
            use_cpu=not on_gpu,
            bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16,
            gradient_checkpointing=on_gpu,  # as ours
            max_length=settings.max_length,
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=rows,
            processing_class=load_tokenizer(settings.hf_model_path),
            peft_config=build_lora_config(settings, model),
        )
        return measure(trainer, steps)


def first_steps() -> int:
    """Return how many steps are left out: a GPU loads its kernels in the first ones."""
    return 10 if torch.cuda.is_available() else 1


def measure(trainer: Any, steps: int) -> dict[str, float]:
    """Train, and count what was read, what had a loss, and the time after the first steps."""
    on_gpu = torch.cuda.is_available()
    left_out = first_steps()
    counts: list[torch.Tensor] = []  # of each step: cells, tokens read, tokens with a loss
    times: list[tuple[float, float]] = []  # by the clock, of the processor
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        ids = inputs["input_ids"]
        read = inputs.get("attention_mask", torch.ones_like(ids)).sum()
        trained = (inputs["labels"] != -100).sum()
        counts.append(torch.stack([torch.full_like(read, ids.numel()), read, trained]))
        result = step(model, inputs, *args, **kwargs)
        if on_gpu:
            torch.cuda.synchronize()
        times.append((time.monotonic(), time.process_time()))
        return result

    trainer.training_step = counted
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    spans = zip(times[left_out - 1], times[-1], strict=True)
    seconds, processor_s = (last - first for first, last in spans)
    cells, read, trained = torch.stack(counts[left_out:]).sum(0).tolist()
    found = {"tokens/s": read / seconds, "trained tokens/s": trained / seconds}
    if not on_gpu:
        found["trained tokens/processor s"] = trained / processor_s
    found["padding"] = 1 - read / cells
    found["s/step"] = seconds / (steps - left_out)
    found["peak GiB"] = (
        torch.cuda.max_memory_allocated() / 2**30
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    return found


WAYS = {"ours": train_ours, "plain": train_plain}


def main() -> None:
    """Measure one way or, by default, both, each in a process of its own."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="135m")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--steps", type=int, default=6, help="the first is left out, on GPUs 10")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--no_4bit", action="store_true", help="the base model without NF4")
    parser.add_argument("--only", choices=WAYS, help="one way, in this process")
    args = parser.parse_args()
    if args.steps <= first_steps():
        parser.error(f"--steps: the first {first_steps()} are left out; take more.")
    if args.only is None:
        for way in WAYS:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", way], check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(args.size, Path(folder), load_tokenizer("smollm2-135m-instruct"))
        dtype = str(choose_dtype()).removeprefix("torch.") if args.dtype == "auto" else args.dtype
        settings = SFTSettings(
            hf_model_path=folder,
            hf_dataset_path=[args.data],
            load_in_4bit=not args.no_4bit,
            dtype=dtype,
            eval_ratio=0,
            batch_size=args.batch_size,
            push_to_hub="false",
        )
        found = WAYS[args.only](settings, args.steps)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    kind = dtype if args.no_4bit else f"NF4 {dtype}"
    print(f"\n{args.size}, {kind}, batch {args.batch_size}, {args.steps} steps, {device}")
    print(f"{args.only:>6}  " + "  ".join(f"{key} {value:.3g}" for key, value in found.items()))
    print("Peak memory: of training on a GPU; of the process, loading included, on a CPU.")


if __name__ == "__main__":
    main()
