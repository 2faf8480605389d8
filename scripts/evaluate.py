"""Compare models on the same tasks with the same simulated users, and write a report.

uv run python scripts/evaluate.py --arm name=base --arm name=sft,lora_path=RUN --held_out_of RUN
"""

from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, and print the tables and the report's path."""
    settings = parse_settings(EvaluationSettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.evaluation.run import evaluate

    evaluate(settings)


if __name__ == "__main__":
    run_script(main)
