"""Simulate conversations between an assistant and a simulated user, and record them.

uv run python scripts/simulate_chats.py --config configs/demo_simulate.yaml
"""

import json
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence

from collabllm.data_processing.dataset_utils import DEFAULT_SYSTEM_PROMPT
from collabllm.flags import parse_own_flags
from collabllm.logging_utils import configure_logging


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags from the command line and from --config."""
    parser = ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="YAML file of flags; the command line wins over it")
    add("--hf_model_path", default="smollm2-135m-instruct", help="local assistant: model")
    add("--lora_path", help="local assistant: adapter")
    add("--use_4bit", action="store_true", help="local assistant: load in NF4")
    add("--assistant_base_url", help="assistant behind a server: its address")
    add("--assistant_model", help="assistant behind a server: its name there")
    add("--max_new_tokens", type=int, default=256, help="most tokens of a reply")
    add("--temperature", type=float, default=0.7, help="of the assistant; 0 is greedy")
    add("--system_prompt", default=DEFAULT_SYSTEM_PROMPT, help='assistant\'s; "" for none')
    add("--user", choices=("sharded", "openai"), default="sharded", help="who plays the user")
    add("--user_model", default="gpt-4o-mini", help="openai user: model")
    add("--user_base_url", help="openai user: address of the server")
    add("--num_traits", type=int, default=0, help="openai user: random persona traits each")
    add("--tasks", default="demo", help="task file, multi-turn dataset, or demo")
    add("--num_tasks", type=int, help="take only the first tasks")
    add("--num_rollouts", type=int, default=1, help="conversations a task")
    add("--max_turns", type=int, default=4, help="most user messages of a conversation")
    add("--token_budget", type=int, help="most assistant tokens of a conversation")
    add("--concurrency", type=int, default=16, help="most conversations at once")
    add("--seed", type=int, default=0, help="of the whole run")
    add("--max_cost", type=float, help="stop after this many dollars; the file can be resumed")
    add(
        "--prices",
        type=json.loads,
        metavar="JSON",
        help='dollars a million tokens, {"model": [prompt, completion]}',
    )
    add("--tokens_per_minute", type=int, help="limit of each server")
    add("--cache", metavar="FILE", help="SQLite file of server answers")
    add("--cache_mode", choices=("record", "replay"), default="record", help="use of --cache")
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
    main()
