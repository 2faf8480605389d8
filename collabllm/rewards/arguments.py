"""Flags of the scripts that score conversations."""

import argparse


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
