"""Put the parts of a run that was done with --shard together, after checking that they fit.

uv run python scripts/merge_runs.py --runs outputs/part_* --output_dir outputs/whole
"""

from collections.abc import Sequence
from dataclasses import dataclass

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import Settings, parse_settings, setting


@dataclass(kw_only=True)
class MergeRunsSettings(Settings):
    """Which parts, into what."""

    runs: list[str] = setting(help="output folders of all parts, in any order", metavar="DIR")
    output_dir: str = setting(help="new folder for the whole run", metavar="DIR")


def main(argv: Sequence[str] | None = None) -> None:
    """Merge; parts that are missing, double, unfinished or made otherwise are refused."""
    settings = parse_settings(MergeRunsSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.simulation.merging import merge_runs

    print(f"Merged: {merge_runs(settings.runs, settings.output_dir)}")


if __name__ == "__main__":
    run_script(main)
