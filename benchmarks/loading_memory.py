"""Peak memory of loading a large JSON Lines file, against holding its rows as Python objects.

uv run python benchmarks/loading_memory.py [--num_rows 100000]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = "from collabllm.data_processing import load_multiturn_dataset as l; print(len(l({path!r})))"
OBJECTS = "import json; print(len([json.loads(line) for line in open({path!r})]))"
IMPORTS = "import collabllm.data_processing"


def main() -> None:
    """Write a file, load it both ways in fresh processes, and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_rows", type=int, default=100_000)
    num_rows = parser.parse_args().num_rows
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.jsonl")
        write_rows(path, num_rows)
        print(f"{num_rows:,} rows, {Path(path).stat().st_size / 1e6:.0f} MB")
        for name, code in (("imports alone", IMPORTS), ("ours", OURS), ("objects", OBJECTS)):
            print(f"{name:15} peak {peak_mb(code.format(path=path), folder):6.0f} MB")


def write_rows(path: str, num_rows: int) -> None:
    """Write conversations of 10 turns, two candidates each, some 2 kB a row."""
    with Path(path).open("w") as stream:
        for idx in range(num_rows):
            turn = idx // 2 % 10
            prompt = [
                {"role": "assistant" if i % 2 else "user", "content": f"{idx // 20} {i} " * 12}
                for i in range(2 * turn + 1)
            ]
            row = {"prompt": prompt, "completion": f"reply {idx} " * 20, "conv_id": idx // 20}
            stream.write(json.dumps({**row, "score": idx % 7 / 7}) + "\n")


def peak_mb(code: str, cache: str) -> float:
    """Run code in a process of its own and return its peak resident memory in MB."""
    watch = "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", code + watch],
        env={"PATH": "", "HF_HOME": cache, "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1]) / 1e3  # Linux counts in kB


if __name__ == "__main__":
    main()
