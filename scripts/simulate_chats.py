"""Simulate conversations between an assistant and a simulated user, and record them.

uv run python scripts/simulate_chats.py --config configs/demo_simulate.yaml
"""

from argparse import Namespace
from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.flags import parse_own_flags, start_parser
from collabllm.logging_utils import configure_logging
from collabllm.simulation.arguments import (
    add_assistant_arguments,
    add_run_arguments,
    add_task_arguments,
    add_user_arguments,
)


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags from the command line and from --config."""
    parser = start_parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add_assistant_arguments(parser)
    add_user_arguments(parser)
    add_task_arguments(parser)
    add_run_arguments(parser)
    add("--num_rollouts", type=int, default=1, help="conversations a task")
    add("--max_turns", type=int, default=4, help="most user messages of a conversation")
    add("--token_budget", type=int, help="most assistant tokens of a conversation")
    add("--output", default="outputs/transcripts.jsonl", help="JSON Lines file to append to")
    add("--resume", action="store_true", help="go on with --output")
    add("--interactive", action="store_true", help="talk yourself, on the first task")
    return parse_own_flags(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, and print how the conversations ended."""
    args = parse_args(argv)
    configure_logging()
    from collabllm.simulation.run import run_simulation

    run_simulation(args)


if __name__ == "__main__":
    run_script(main)
