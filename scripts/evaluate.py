"""Compare models on the same tasks with the same simulated users, and write a report.

uv run python scripts/evaluate.py --arm name=base --arm name=sft,lora_path=outputs/demo_sft
"""

from argparse import Namespace
from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.evaluation.arms import parse_arm
from collabllm.evaluation.users import parse_user
from collabllm.flags import parse_own_flags, start_parser
from collabllm.logging_utils import configure_logging
from collabllm.rewards.arguments import add_judge_arguments
from collabllm.simulation.arguments import (
    add_model_arguments,
    add_run_arguments,
    add_task_arguments,
)


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags from the command line and from --config."""
    parser = start_parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--arm",
        type=parse_arm,
        action="append",
        required=True,
        metavar="name=NAME[,lora_path=…][,system_prompt=default|proactive|none|TEXT]",
        help="a competitor, several times; behind a server: name=…,model=…,base_url=…",
    )
    add("--reference", help="arm that the others are compared with; default: the first")
    add_model_arguments(parser)
    add(
        "--user",
        type=parse_user,
        action="append",
        metavar="sharded|openai|name=NAME,kind=…,model=…,base_url=…,num_traits=…,patience=…",
        help="a simulated user, several times; default: sharded",
    )
    add_task_arguments(parser)
    add("--num_told", type=int, nargs="+", default=[0], help="facts told in the openings")
    add_run_arguments(parser)
    add_judge_arguments(parser)
    add("--metrics", nargs="+", default=["facts_elicited", "facts_used", "over_asking"])
    add("--num_rollouts", type=int, default=1, help="conversations a task, arm and user")
    add("--max_turns", type=int, default=4, help="most user messages of a conversation")
    add("--report_to", default="none", help="tracker, as in accelerate: wandb, tensorboard, …")
    add("--output", default="outputs/evaluation", help="folder of results and report")
    add("--resume", action="store_true", help="go on with --output")
    return parse_own_flags(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, and print the tables and the report's path."""
    args = parse_args(argv)
    configure_logging()
    from collabllm.evaluation.run import run_evaluation

    run_evaluation(args)


if __name__ == "__main__":
    run_script(main)
