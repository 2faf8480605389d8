"""Find the checkpoint to resume from, passing over one that a kill left half-written."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

# The trainer writes this file last.
_LAST_FILE = "trainer_state.json"


def find_checkpoint(resume: str | None, output_dir: str) -> str | None:
    """Return the checkpoint to resume from, or None to start afresh.

    Args:
        resume: `--resume_from_checkpoint`: a checkpoint's path, `true` for the newest complete one
            in `output_dir`, or None, `false` for a fresh run.
        output_dir: The run's output folder.

    Raises:
        FileNotFoundError: If there is no complete checkpoint where one was asked for.
    """
    if resume is None or str(resume).lower() in ("", "false", "none"):
        return None
    if str(resume).lower() != "true":
        if not (Path(resume) / _LAST_FILE).is_file():
            raise FileNotFoundError(f"{resume}: there is no complete checkpoint.")
        return resume
    folders = sorted(
        Path(output_dir).glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[-1])
    )
    complete = [folder for folder in folders if (folder / _LAST_FILE).is_file()]
    for folder in set(folders) - set(complete):
        logger.warning("%s is incomplete and passed over.", folder)
    if not complete:
        raise FileNotFoundError(
            f"--resume_from_checkpoint true: there is no checkpoint in {output_dir}. Give the "
            "--output_dir of the run to resume; a run that was stopped before its first "
            "checkpoint (--save_steps) starts afresh without --resume_from_checkpoint."
        )
    return str(complete[-1])
