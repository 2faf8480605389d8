"""How long view.py takes for many transcripts, and how much memory.

uv run python benchmarks/view_transcripts.py 20000
"""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from collabllm.evaluation.report.view import view

_WORDS = "the plan budget guests party garden music letter tone deadline report error table".split()


def write_transcripts(path: Path, number: int) -> None:
    """Write made-up conversations of four turns with 120 words a reply."""
    random_ = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(random_.choices(_WORDS, k=num_words)) + "?"

    with path.open("w") as file:
        for idx in range(number):
            roles = ("user", "assistant") * 4
            line = {
                "task_id": f"task-{idx}",
                "rollout_idx": 0,
                "single_turn_prompt": text(40),
                "messages": [
                    {"role": role, "content": text(20 if role == "user" else 120)} for role in roles
                ],
                "termination_reason": "max_turns",
            }
            file.write(json.dumps(line) + "\n")


def main() -> None:
    """Write, view, and print seconds of the processor and the greatest memory."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "transcripts.jsonl"
        write_transcripts(file, int(sys.argv[1]))
        started = time.process_time()
        page = view(str(file), limit=0)
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        sizes = [path.stat().st_size / 1e6 for path in (file, page)]
        print(f"{sizes[0]:.0f} MB of transcripts, page of {sizes[1]:.0f} MB: ", end="")
        print(f"{seconds:.1f} s of one processor, {peak:.0f} MB")


if __name__ == "__main__":
    main()
