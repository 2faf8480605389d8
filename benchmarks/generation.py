"""New tokens a second of a local model, by precision and by the replies written at once.

uv run python benchmarks/generation.py --rows 1 4 16 32 64
"""

import argparse
import asyncio
import time

import torch

from collabllm.event_loop import run
from collabllm.models import BUNDLED_MODEL
from collabllm.simulation import LocalAssistant

PROMPT_TOKENS, NEW_TOKENS = 100, 32


async def answer(assistant: LocalAssistant, prompts: list[list[int]]) -> int:
    """Answer all prompts at once; return the number of tokens written."""
    replies = await asyncio.gather(*(assistant.answer(prompt) for prompt in prompts))
    return sum(len(ids) for _, ids in replies)


def measure(assistant: LocalAssistant, rows: int, seed: int) -> float:
    """Return the new tokens a second of one batch of random prompts."""
    draws = torch.Generator().manual_seed(seed)
    size = (rows, PROMPT_TOKENS)
    prompts = torch.randint(100, len(assistant.tokenizer), size, generator=draws).tolist()
    start = time.monotonic()
    written = run(answer(assistant, prompts))
    return written / (time.monotonic() - start)


def main() -> None:
    """Print a line for each precision, the best of the repeats."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--hf_model_path", default=BUNDLED_MODEL)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for dtype in args.dtype:
        with LocalAssistant(
            args.hf_model_path, max_new_tokens=NEW_TOKENS, do_sample=False, dtype=dtype
        ) as assistant:
            measure(assistant, 1, -1)
            rates = [
                max(measure(assistant, rows, seed) for seed in range(args.repeats))
                for rows in args.rows
            ]
        shown = ", ".join(
            f"{rows} rows {rate:.0f}" for rows, rate in zip(args.rows, rates, strict=True)
        )
        print(f"{dtype}, new tokens a second: {shown}")


if __name__ == "__main__":
    main()
