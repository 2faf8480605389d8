"""Seconds and tokens of a step of online training, by turns, by conversations and by plain TRL.

Plain TRL rewards the length of a reply, which costs nothing: it is the floor. All three answer the
same openings of the demo with the same model and sampling; the user is rule-based.

uv run python benchmarks/grpo_step.py --lora_path outputs/demo_sft [--steps 4] [--window 1]

Without an adapter the bundled model is cut by the length limit at most openings: such answers get
the floor without futures, and there is little to time.
"""

import argparse
import tempfile
from typing import Any

from rich.console import Console
from rich.table import Table
from trl import GRPOTrainer

from collabllm.hub import BUNDLED_MODEL
from collabllm.training.adapters import build_lora_config
from collabllm.training.grpo import GRPO
from collabllm.training.grpo_settings import GRPOSettings
from collabllm.training.run import Run
from collabllm.training.start import start_run

WAYS = ("turn", "conversation", "plain")


def main() -> None:
    """Measure each way and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--model", default=BUNDLED_MODEL)
    parser.add_argument("--lora_path", help="an SFT adapter to start from")
    parser.add_argument("--steps", type=int, default=4, help="the first is left out")
    parser.add_argument("--num_generations", type=int, default=4, help="of one prompt a step")
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--num_samples", type=int, default=2)
    parser.add_argument("--max_turns", type=int, default=3)
    args = parser.parse_args()
    found = {way: measure(way, args) for way in args.ways}
    table = Table(title=f"One prompt a step, {args.num_generations} answers, {args.steps} steps")
    for column in ("credit", "s a step", "tokens written", "with a loss", "written a second"):
        table.add_column(column, justify="right")
    for way, (seconds, written, trained) in found.items():
        rate = written / seconds
        table.add_row(way, f"{seconds:.1f}", f"{written:.0f}", f"{trained:.0f}", f"{rate:.0f}")
    Console().print(table)


def measure(way: str, args: argparse.Namespace) -> tuple[float, float, float]:
    """Train; return seconds, tokens that the policy wrote and those with a loss, a step."""
    settings = GRPOSettings(
        hf_model_path=args.model,
        lora_path=args.lora_path,
        hf_dataset_path=["demo"],
        credit="conversation" if way == "conversation" else "turn",
        window=args.window,
        num_samples=args.num_samples,
        max_turns=args.max_turns,
        batch_size=args.num_generations,
        eval_ratio=0,
        sample_steps=0,
        push_to_hub="false",
    )
    fields = {
        "max_steps": args.steps,
        "gradient_accumulation_steps": 1,
        "num_generations": args.num_generations,
        "max_completion_length": args.max_completion_length,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "shuffle_dataset": True,  # TRL's own order, for all three
    }
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(GRPO(), settings, {**fields, "output_dir": folder})
        data = run.method.prepare_data(run.settings, run.tokenizer, run.config)
        trainer = (
            build_plain(run, data.train) if way == "plain" else run.method.build_trainer(run, data)
        )
        trainer.train()
        if way != "plain":
            trainer.end()
    first, *log = [entry for entry in trainer.state.log_history if "step_time" in entry]
    seconds = sum(entry["step_time"] for entry in log) / len(log)
    lengths = sum(entry["completions/mean_length"] for entry in log) / len(log)
    trained = lengths * args.num_generations
    if way == "plain":
        return seconds, trained, trained
    written = (log[-1]["generated_tokens"] - first["generated_tokens"]) / len(log)
    return seconds, written, trained


def build_plain(run: Run, prompts: Any) -> Any:
    """Make TRL's own trainer around the same model."""
    model = run.load_model()
    return GRPOTrainer(
        model=model,
        args=run.config,
        processing_class=run.tokenizer,
        peft_config=None if run.settings.lora_path else build_lora_config(run.settings, model),
        train_dataset=prompts,
        reward_funcs=lambda completion_ids, **columns: [float(len(ids)) for ids in completion_ids],
    )


if __name__ == "__main__":
    main()
