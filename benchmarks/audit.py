"""What the audit of simulated users says of conversations and openings that others wrote.

uv run python benchmarks/audit.py DATASET IN3_FILE
"""

import argparse
from collections.abc import Iterator

from collabllm.files import read_json_lines
from collabllm.messages import Message
from collabllm.simulation.audit import AuditRates, audit_conversation, measure_user
from collabllm.tasks import load_tasks


def main() -> None:
    """Print faults and measures of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="rows of the dataset format, such as Twenty Questions")
    parser.add_argument("in3", help="IN3's train.jsonl")
    args = parser.parse_args()
    rates = AuditRates()
    for goal, talk in conversations(args.dataset):
        rates.add(audit_conversation(talk, goal), measure_user(talk, goal, ()))
    print(f"conversations: {rates}")
    openings = AuditRates()
    for task in load_tasks(args.in3):
        if task.facts:
            talk: list[Message] = [{"role": "user", "content": task.opening}]
            measures = measure_user(talk, task.single_turn_prompt, task.facts)
            openings.add({}, measures)
    print(f"openings: {openings}")


def conversations(file: str) -> Iterator[tuple[str, list[Message]]]:
    """Yield the goal and the longest prompt of each conversation."""
    longest: dict[object, dict] = {}
    for row in read_json_lines(file):
        before = longest.get(row["conv_id"])
        if before is None or len(row["prompt"]) > len(before["prompt"]):
            longest[row["conv_id"]] = row
    for row in longest.values():
        yield row["single_turn_prompt"], row["prompt"]


if __name__ == "__main__":
    main()
