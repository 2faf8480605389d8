"""Simulate conversations between an assistant and a simulated user, and record them.

uv run python scripts/simulate_chats.py --config configs/demo_simulate.yaml
"""

from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings
from collabllm.simulation.settings import SimulationSettings


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, and print how the conversations ended."""
    settings = parse_settings(SimulationSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.simulation.run import simulate_chats

    simulate_chats(settings)


if __name__ == "__main__":
    run_script(main)
