"""Show transcripts, a dataset or a finished evaluation in a browser.

uv run python scripts/view.py outputs/simulation/transcripts.jsonl
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging
from collabllm.settings import Settings, parse_settings, setting


@dataclass(kw_only=True)
class ViewSettings(Settings):
    """What to show, and where to write the page."""

    file: str = setting(
        help="transcript file, folder of them, evaluation's folder, or dataset (file, folder, Hub "
        "id, demo)",
        positional=True,
    )
    dataset_split: str = setting(
        "train", "split of a Hub dataset", metavar="SPLIT", aliases=("--split",)
    )
    skip_bad_rows: bool = setting(False, "leave malformed rows of a dataset out")
    limit: int = setting(20_000, "most conversations to show; 0 shows all", least=0)
    output_file: str | None = setting(
        None, "HTML file to write; by default beside the input", metavar="FILE",
        aliases=("--output",),
    )  # fmt: skip
    overwrite: bool = setting(False, "replace a file that is no former page of this input")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and print its path."""
    settings = parse_settings(ViewSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.evaluation.report.view import view

    print(f"Open in a browser: {view(**asdict(settings))}")


if __name__ == "__main__":
    run_script(main)
