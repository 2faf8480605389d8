"""The output folder: what it holds, the checkpoint to go on from, and what a run is called."""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerState

from collabllm.cli import go_on_with
from collabllm.files import hold_lock, write_text

logger = logging.getLogger(__name__)

# The trainer writes this file last.
_LAST_FILE = "trainer_state.json"
_FACTS_FILE = "run.json"
_LOCK_FILE = ".run.lock"
CONVERSATIONS = "conversations"
"""Folder of the transcripts that online training writes on its way."""
_RESULTS = ("adapter_model.safetensors", "metrics.json")
_ADAPTER = ("adapter_model.safetensors", "adapter_config.json", "README.md")

Progress = Literal["prepared", "started", "trained"]


def wants_to_resume(resume: Any) -> bool:
    """Tell whether `--resume_from_checkpoint` asks for anything but a fresh run."""
    return str(resume).lower() not in ("", "false", "none")


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / _LAST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing, or a kill came while it was written
        return False
    return True


def find_checkpoint(resume: str | None, output_dir: str) -> str | None:
    """Return the checkpoint to go on from, or None to start afresh.

    Args:
        resume: `--resume_from_checkpoint`: a checkpoint's path, `true` for the newest complete one
            in `output_dir`, `auto` for that or else a fresh run, or None, `false` for a fresh run.
        output_dir: The run's output folder.

    Raises:
        FileNotFoundError: If there is no complete checkpoint where one was asked for.
    """
    if not wants_to_resume(resume):
        return None
    word = str(resume).lower()
    if word not in ("true", "auto"):
        checkpoint = Path(str(resume)).expanduser()
        if not _is_complete(checkpoint):
            raise FileNotFoundError(f"{resume}: there is no complete checkpoint.")
        return str(checkpoint)
    folders = list_checkpoints(Path(output_dir))
    complete = [folder for folder in folders if _is_complete(folder)]
    for folder in folders:
        if folder not in complete:
            logger.warning("%s is incomplete and passed over.", folder)
    if complete:
        return str(complete[-1])
    if word == "auto":
        return None
    raise FileNotFoundError(
        f"--resume_from_checkpoint true: there is no checkpoint in {output_dir}. Give the "
        "--output_dir of the run to resume; a run that was stopped before its first "
        "checkpoint (--save_steps) starts afresh without --resume_from_checkpoint."
    )


def list_checkpoints(folder: Path) -> list[Path]:
    """List a run's checkpoints by step; other folders, such as `checkpoint-best`, are no steps."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.glob("*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def read_state(checkpoint: str) -> TrainerState:
    """Read how far a checkpoint's training has come."""
    return TrainerState.load_from_json(str(Path(checkpoint) / _LAST_FILE))


def describe_kept(folder: Path, resumed: str | None, progress: Progress) -> str:
    """Say what an interrupted run leaves, and how to go on.

    Args:
        folder: The run's output folder.
        resumed: The checkpoint that the run itself went on from.
        progress: How far the run came; a prepared one has not taken its folder yet.
    """
    newest = find_checkpoint("auto", str(folder)) if progress != "prepared" else None
    if newest or resumed:
        go_on = go_on_with(
            output_dir=str(folder), resume_from_checkpoint="true" if newest else resumed
        )
        return f"{newest or resumed} is kept. {go_on}"
    if progress == "trained":
        return f"the trained adapter is kept in {folder}; only its evaluation is missing."
    return "there is no checkpoint yet; the same command starts again."


def is_finished(folder: Path) -> bool:
    """Tell whether a run in this folder has left its results."""
    return all((folder / name).is_file() for name in _RESULTS)


def check_output_folder(config: Any, overwrite: bool = False) -> None:
    """Refuse a folder that holds another run's results.

    Raises:
        FileExistsError: If the run is a new one and its folder is taken.
        NotADirectoryError: If the name is that of a file.
    """
    folder = Path(config.output_dir)
    if folder.is_file():
        raise NotADirectoryError(f"--output_dir {folder} is a file; give the name of a folder.")
    if overwrite or config.resume_from_checkpoint:
        return
    taken = [name for name in _RESULTS if (folder / name).is_file()]
    taken += [path.name for path in list_checkpoints(folder)]
    if taken:
        raise FileExistsError(
            f"{folder} holds a run ({', '.join(taken[:3])}). Choose another --output_dir, go on "
            "with it by --resume_from_checkpoint true, or give --overwrite_output_dir."
        )


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of the output folder while this one writes it.

    Raises:
        FileExistsError: If another run is writing it.
    """
    taken = FileExistsError(
        f"{folder}: another training is writing this folder; wait for its end, or choose "
        "another --output_dir."
    )
    try:
        with hold_lock(folder / _LOCK_FILE, taken):
            yield
    finally:
        with suppress(OSError):
            folder.rmdir()  # where nothing was written


def clear_folder(folder: Path, lora_path: str | None = None) -> None:
    """Remove another run's results, name and transcripts, which would pass for this one's.

    Args:
        folder: The output folder.
        lora_path: The adapter that this run starts from; it stays where it is the one in `folder`.
    """
    for checkpoint in list_checkpoints(folder):
        shutil.rmtree(checkpoint)
    for kind in ("held_out", "sample"):
        for file in (folder / CONVERSATIONS).glob(f"{kind}-*.jsonl"):
            file.unlink()
    is_start = lora_path is not None and Path(lora_path).resolve() == folder.resolve()
    for name in (_FACTS_FILE, "metrics.json", *(() if is_start else _ADAPTER)):
        (folder / name).unlink(missing_ok=True)


def add_run_facts(folder: Path, **facts: Any) -> None:
    """Write what a run that goes on keeps or is compared with; JSON values by name."""
    facts = {**read_run_facts(folder), **facts}
    write_text(folder / _FACTS_FILE, json.dumps(facts, indent=2) + "\n")


def read_run_facts(folder: Path) -> dict[str, Any]:
    """Read what a run is called; empty where none has been."""
    try:
        facts: dict[str, Any] = json.loads((folder / _FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return facts
