"""Train in several ways and with several seeds, and compare them on the same tasks.

uv run python scripts/ablate.py --config configs/ablation_window.yaml
"""

from collections.abc import Sequence

from collabllm.ablation.settings import AblationSettings
from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Train all, evaluate all, and print tables and the reports' paths."""
    settings = parse_settings(AblationSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.ablation.run import ablate  # torch and trl load here: --help answers now

    ablate(settings)


if __name__ == "__main__":
    run_script(main)
