"""Show conversations of a base model and its adapter with the same simulated users, side by side.

uv run python scripts/compare_chats.py --config configs/demo_compare.yaml --seed 1
"""

from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings
from collabllm.simulation.side_by_side import SideBySideSettings


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the tasks, talk about them, and print both conversations of each."""
    settings = parse_settings(SideBySideSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.simulation.side_by_side import compare_chats

    compare_chats(settings)


if __name__ == "__main__":
    run_script(main)
