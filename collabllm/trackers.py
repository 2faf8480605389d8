"""Experiment trackers: the check of the W&B login, and logging of results that need no trainer."""

import logging
import netrc
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

logger = logging.getLogger(__name__)

_SET = ("WANDB_DIR", "WANDB_PROJECT", "WANDB_MODE")


def check_training_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that transformers does not know, or whose package is missing.

    Args:
        names: What `--report_to` lists, without `none` and `all`.

    Raises:
        ValueError: If there is one.
    """
    from transformers.integrations import integration_utils

    installed = integration_utils.get_available_reporting_integrations()
    _check_names(names, integration_utils.INTEGRATION_TO_CALLBACK, installed)


def check_tracker(report_to: str) -> None:
    """Refuse a tracker that accelerate does not know, or whose package is missing.

    Raises:
        ValueError: If it is one.
    """
    if report_to == "none":
        return
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    known = [str(kind.value) for kind in LoggerType if kind.value != "all"]
    _check_names([report_to], known, map(str, get_available_trackers()))


def _check_names(names: Iterable[str], known: Iterable[str], installed: Iterable[str]) -> None:
    known, installed = sorted(known), set(installed)
    for name in names:
        if name not in known:
            raise ValueError(
                f"--report_to {name}: there is no such tracker; known: none, {', '.join(known)}."
            )
        if name not in installed:
            raise ValueError(f"--report_to {name}: its package is missing; install it with pip.")


def log_results(
    report_to: str, folder: Path, values: Mapping[str, float], settings: Mapping[str, Any]
) -> None:
    """Log an evaluation's means to a tracker of accelerate's (wandb, tensorboard, …).

    Args:
        report_to: The tracker's name, or `none`.
        folder: Folder for the tracker's files.
        values: Values to log, by name.
        settings: Settings of the run, as flat values.

    Raises:
        ConnectionError: If W&B refuses the login.
    """
    if report_to == "none":
        return
    if report_to == "wandb":
        prepare_wandb(str(folder))
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, log_with=report_to, project_dir=str(folder))
    flat = {k: v for k, v in settings.items() if isinstance(v, (str, int, float))}
    accelerator.init_trackers("collabllm-evaluation", config=flat)
    accelerator.log(dict(values), step=0)
    accelerator.end_training()


@contextmanager
def own_wandb_run(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Close the W&B run that starts inside, and undo what `prepare_wandb` sets.

    Else the next run of this process, as in a notebook, would log into this one.
    """
    before = {name: environ.get(name) for name in _SET}
    was_open = _has_open_run()
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
        if _has_open_run() and not was_open:
            sys.modules["wandb"].finish(exit_code)


def open_wandb_run(
    name: str, run_id: str | None, environ: MutableMapping[str, str] = os.environ
) -> str:
    """Start a W&B run, or go on with one; the trainer's callback takes the run that is open.

    W&B reads the environment once a process, so what the run needs is given to it.

    Args:
        name: Of the run.
        run_id: Of the W&B run to go on with, or None for a new one.
        environ: As `prepare_wandb` left it.

    Returns:
        The run's id.
    """
    import wandb

    mode: Any = environ.get("WANDB_MODE")
    run = wandb.run or wandb.init(
        project=environ["WANDB_PROJECT"],
        dir=environ["WANDB_DIR"],
        mode=mode,
        name=name,
        id=run_id,
        resume="allow" if run_id else None,
    )
    return str(run.id)


def log_table(name: str, rows: Sequence[Mapping[str, Any]], values: Mapping[str, float]) -> None:
    """Put a table into the W&B run that is open, if one is.

    Args:
        name: Of the table.
        rows: Its rows, all with the same columns.
        values: Further values of the same moment, such as the step.
    """
    if not rows or not _has_open_run():
        return
    import wandb

    table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    wandb.log({name: table, **values})


def _has_open_run() -> bool:
    return getattr(sys.modules.get("wandb"), "run", None) is not None


def prepare_wandb(
    output_dir: str,
    environ: MutableMapping[str, str] = os.environ,
) -> None:
    """Check the W&B login, or switch W&B to offline with a notice when there is none.

    Args:
        output_dir: Output folder of the run, for W&B's files.
        environ: Where W&B reads its settings.

    Raises:
        ConnectionError: If a key is found and W&B refuses it or cannot be reached.
    """
    environ.setdefault("WANDB_DIR", output_dir)
    environ.setdefault("WANDB_PROJECT", "collabllm")
    if environ.get("WANDB_MODE"):
        return
    if not _has_wandb_key(environ):
        environ["WANDB_MODE"] = "offline"
        logger.info(
            "No W&B login found: logging offline. Upload later with: wandb sync %s",
            Path(environ["WANDB_DIR"]) / "wandb" / "offline-run-*",
        )
        return
    import wandb

    try:
        accepted = wandb.login(verify=True, timeout=30)
    except (wandb.Error, ValueError) as error:
        raise ConnectionError(_wandb_remedy(type(error).__name__)) from None
    if not accepted:
        raise ConnectionError(_wandb_remedy("not accepted"))


def _wandb_remedy(reason: str) -> str:
    return (
        f"W&B did not accept the login ({reason}). Check WANDB_API_KEY and the network, or set "
        "WANDB_MODE=offline or --report_to none."
    )


def _has_wandb_key(environ: MutableMapping[str, str]) -> bool:
    if environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
