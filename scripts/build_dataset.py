"""Build a multi-turn dataset with scored replies from single-turn tasks.

uv run python scripts/build_dataset.py --config configs/demo_build.yaml
"""

import json
from argparse import Namespace
from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.flags import parse_own_flags, start_parser
from collabllm.logging_utils import configure_logging
from collabllm.rewards.arguments import add_judge_arguments
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
    add_judge_arguments(parser)
    add(
        "--num_told",
        type=int,
        nargs="+",
        default=[0],
        help="facts told in the openings, the tasks taking turns",
    )
    add("--num_candidates", type=int, default=3, help="replies a turn")
    add("--proactive_share", type=float, default=0.5, help="of them under the proactive prompt")
    add(
        "--keep_cut_replies",
        action="store_true",
        help="replies that --max_new_tokens cut may be candidates, too",
    )
    add("--max_turns", type=int, default=4, help="most turns of a conversation")
    add("--window", type=int, default=2, help="user messages simulated after a reply")
    add("--num_samples", type=int, default=3, help="futures a reply")
    add("--sample_budget", type=int, default=0, help="more futures a turn for undecided pairs")
    add(
        "--weights",
        type=json.loads,
        metavar="JSON",
        default={"facts_elicited": 1.0, "over_asking": -0.5},
        help='metrics and their weights, {"document->bleu": 1, "interactivity": 1}',
    )
    add("--token_penalty", type=float, default=0.0, help="reward lost a token, at most 1 in all")
    add("--output", default="outputs/dataset", help="folder of the dataset")
    add("--resume", action="store_true", help="go on with --output")
    add("--push_to_hub", metavar="REPO", help="private dataset repository, pushed to at the end")
    add("--plan", action="store_true", help="print calls, tokens, cost and time, and stop")
    add("--lint", action="store_true", help="look at the rewards of 10 tasks, and stop")
    return parse_own_flags(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Build, and say what was lost and what it cost."""
    args = parse_args(argv)
    configure_logging()
    from collabllm.data_engine.run import run_build

    run_build(args)


if __name__ == "__main__":
    run_script(main)
