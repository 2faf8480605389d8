"""Which fact a question asks for, on IN3: precision and recall of a matcher.

Each row's own inquiries, read as replies, should find the detail that they ask for; those of
another row, none.

uv run python benchmarks/matching.py IN3/train.jsonl [--matchers semantic cues] [--num_rows 300]
"""

import argparse
import time

from rich.console import Console
from rich.table import Table

from collabllm.files import read_json_lines
from collabllm.tasks import load_tasks
from collabllm.tasks.matching import facts_asked_for, find_questions

_DISTANCE = 7


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="IN3's train.jsonl")
    parser.add_argument("--matchers", nargs="+", default=["semantic", "cues"])
    parser.add_argument("--num_rows", type=int, default=300)
    args = parser.parse_args()
    rows = list(read_json_lines(args.file))
    rows = [row for row in rows if row["vague"] and row["missing_details"]][: args.num_rows]
    table = Table(title=f"{len(rows)} tasks of IN3")
    for column in ("matcher", "inquiries", "recall", "precision", "strayed", "ms a question"):
        table.add_column(column)
    facts = {task.opening: task.facts for task in load_tasks(args.file)}
    for matcher in args.matchers:
        table.add_row(matcher, *measure(rows, facts, matcher))
    Console().print(table)


def measure(rows: list[dict], facts: dict[str, tuple], matcher: str) -> list[str]:
    """Return the number of inquiries, recall, precision, and how many strayed."""
    own = right = found = strayed = 0
    started = time.perf_counter()
    for row, other in zip(rows, rows[_DISTANCE:] + rows[:_DISTANCE], strict=True):
        known = facts[row["task"]]
        for detail in row["missing_details"]:
            asked = facts_asked_for(known, find_questions(detail["inquiry"]), set(), matcher)
            own, found = own + 1, found + len(asked)
            right += detail["description"] in [fact.name for fact in asked]
            foreign = facts[other["task"]]
            strayed += bool(
                facts_asked_for(foreign, find_questions(detail["inquiry"]), set(), matcher)
            )
    milliseconds = 1000 * (time.perf_counter() - started) / (2 * own)
    return [
        f"{own:,}",
        f"{right / own:.1%}",
        f"{right / max(found, 1):.1%}",
        f"{strayed / own:.1%}",
        f"{milliseconds:.1f}",
    ]


if __name__ == "__main__":
    main()
