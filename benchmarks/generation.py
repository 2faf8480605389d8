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


def measure(assistant: LocalAssistant, rows: int, seed: int) -> tuple[float, float]:
    """Return the new tokens of one batch of random prompts, a second and a processor second."""
    draws = torch.Generator().manual_seed(seed)
    size = (rows, PROMPT_TOKENS)
    prompts = torch.randint(len(assistant.tokenizer), size, generator=draws).tolist()
    start, start_processor = time.monotonic(), time.process_time()
    written = run(answer(assistant, prompts))
    seconds, processor_s = time.monotonic() - start, time.process_time() - start_processor
    return written / seconds, written / processor_s


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
            for rows in args.rows:
                seeds = range(100 * rows, 100 * rows + args.repeats)  # no prompt comes twice
                found = [measure(assistant, rows, seed) for seed in seeds]
                best, best_processor = (max(rates) for rates in zip(*found, strict=True))
                print(
                    f"{dtype}, {rows} rows: {best:.0f} new tokens a second, "
                    f"{best_processor:.0f} a processor second"
                )


if __name__ == "__main__":
    main()
