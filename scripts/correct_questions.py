"""Write what is good to say after a model's own questions, in conversations that it has had.

uv run python scripts/correct_questions.py --transcripts outputs/loop_talks --tasks demo
"""

from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.data_engine.settings import CorrectionSettings
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Correct, and print where the rows are."""
    settings = parse_settings(CorrectionSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.data_engine.corrections import correct_questions

    correct_questions(settings)


if __name__ == "__main__":
    run_script(main)
