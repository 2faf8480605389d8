"""Attention of one new token over cached keys, batched, on a CPU: three ways in one process.

uv run python benchmarks/attention.py
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from collabllm.simulation.assistant.engines.cpu_attention import _attend

HEADS, KV_HEADS, DIM = 9, 3, 64  # of SmolLM2-135M


def measure(attend: Callable[[], object], repeats: int = 40) -> float:
    """Return milliseconds of processor time a call; the lower quartile, for machines in use."""
    attend()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        attend()
        times.append(time.process_time() - start)
    return 1000 * sorted(times)[repeats // 4]


def main() -> None:
    """Print a line for each type of number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=250, help="in the cache, of each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in (torch.bfloat16, torch.float32):
        query = torch.randn(args.conversations, HEADS, 1, DIM).to(dtype)
        shape = (2, args.conversations, KV_HEADS, args.tokens, DIM)
        key, value = torch.randn(shape).to(dtype)
        mask = torch.rand(args.conversations, 1, 1, args.tokens) < 0.9
        layer = torch.nn.Module()

        def repeated(query=query, key=key, value=value, mask=mask) -> torch.Tensor:
            key, value = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (key, value))
            return scaled_dot_product_attention(query, key, value, attn_mask=mask)

        def by_torch(query=query, key=key, value=value, mask=mask) -> torch.Tensor:
            return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)

        def ours(layer=layer, query=query, key=key, value=value, mask=mask) -> object:
            return _attend(layer, query, key, value, mask)

        ways = {"keys repeated": repeated, "enable_gqa": by_torch, "ours": ours}
        found = ", ".join(f"{name} {measure(way):.2f} ms" for name, way in ways.items())
        print(f"{dtype}: {found}")


if __name__ == "__main__":
    main()
