"""Show the conversations of a transcript file or a dataset in a browser.

uv run python scripts/view.py outputs/demo_transcripts.jsonl
"""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.logging_utils import configure_logging


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    """Read the flags."""
    parser = ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", help="transcript file, or dataset: file, folder, Hub id, demo")
    parser.add_argument("--split", default="train", help="split of a Hub dataset")
    parser.add_argument("--limit", type=int, default=500, help="most conversations to show")
    parser.add_argument("--output", help="HTML file to write; default: the input's name")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and print its path."""
    args = parse_args(argv)
    configure_logging()
    from collabllm.evaluation.report.view import view

    print(f"Open in a browser: {view(args)}")


if __name__ == "__main__":
    run_script(main)
