"""Let people judge models: one link per person, hidden arms in balanced order, grades, reasons.

uv run python scripts/study.py --arm name=base --arm name=new,lora_path=RUN --held_out_of RUN
"""

from collections.abc import Sequence

from collabllm.cli import run_script
from collabllm.evaluation.study.settings import StudySettings
from collabllm.logging_utils import configure_logging
from collabllm.settings import parse_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Host the study until Ctrl-C, plan it, or export it."""
    settings = parse_settings(StudySettings, argv, description=__doc__.splitlines()[0])
    configure_logging()
    from collabllm.evaluation.study.run import run_study

    run_study(settings)


if __name__ == "__main__":
    run_script(main)
