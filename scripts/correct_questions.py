"""Let a model open conversations, and write rows of what is good to say after its questions.

uv run python scripts/correct_questions.py --lora_path outputs/SFT_RUN --tasks TASKS
"""

from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.data_engine.settings import CorrectionSettings
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, correct, and print where the rows are."""
    settings = parse_settings(CorrectionSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.data_engine.corrections import correct_questions

    correct_questions(settings)


if __name__ == "__main__":
    run_script(main)
