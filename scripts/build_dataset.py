"""Build a multi-turn dataset with scored replies from single-turn tasks.

uv run python scripts/build_dataset.py --config configs/demo_build.yaml
"""

from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.data_engine.settings import BuildSettings
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Build, and print where the dataset is and what it cost."""
    settings = parse_settings(BuildSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.data_engine.run import build_dataset

    build_dataset(settings)


if __name__ == "__main__":
    run_script(main)
