"""How long view.py takes for many transcripts, and how much memory; how long its page opens.

uv run python benchmarks/view_transcripts.py 20000

Opening is measured where Chromium is installed, as the first page of one that has just started.
"""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from collabllm.evaluation.report.view import view
from tests.browser import CHROMIUM, start_browser

_WORDS = "the plan budget guests party garden music letter tone deadline report error table".split()


def write_transcripts(path: Path, number: int) -> None:
    """Write made-up conversations of four turns with 120 words per reply."""
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


def open_page(page: Path) -> str:
    """Return how long a browser takes for this page and for an empty one, each as its first."""
    empty = page.with_name("empty.html")
    empty.write_text("<!doctype html><title>empty</title>")
    found = []
    for each in (empty, page):
        browser = start_browser()
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        started = time.perf_counter()
        browser.get(each.as_uri())
        found.append(time.perf_counter() - started)
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        found.append(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))
        browser.quit()
    text = (
        "an empty page opens in {:.2f} s ({:.2f} s of a processor), this one in {:.2f} s ({:.2f} s)"
    )
    return text.format(*found)


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
        if CHROMIUM:
            print(open_page(page))


if __name__ == "__main__":
    main()
