"""Flags of the scripts that score conversations."""

import argparse

from collabllm.rewards.judge import Judge
from collabllm.rewards.registry import MetricTools
from collabllm.simulation.session import Session


def add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of what metrics need besides the conversation."""
    add = parser.add_argument
    add("--judge_model", help="model that rates and extracts, for metrics that need one")
    add("--judge_base_url", help="address of its server")
    add(
        "--allow_unsafe_code",
        action="store_true",
        help="run model-written code even where it cannot be isolated",
    )


def build_tools(args: argparse.Namespace, session: Session) -> MetricTools:
    """Make the tools that the flags name; the tokenizer is the assistant's, added later."""
    judge = None
    if args.judge_model:
        judge = Judge(session.client(args.judge_base_url), args.judge_model)
    return MetricTools(judge=judge, allow_unsafe_code=args.allow_unsafe_code)
