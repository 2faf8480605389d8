"""Run names and secrets."""

import logging
import os
from collections.abc import MutableMapping
from datetime import datetime

logger = logging.getLogger(__name__)

_RUNPOD_SECRETS = {
    "RUNPOD_SECRET_HF_TOKEN": "HF_TOKEN",
    "RUNPOD_SECRET_WANDB_API_KEY": "WANDB_API_KEY",
}


def get_timebased_filename(name: str, extension: str = "", now: datetime | None = None) -> str:
    """Return `name-YYYYMMDD-HHMMSS` and the extension, for run names and output files.

    Args:
        name: For example `sft-my_tag`; characters that paths or Hub names refuse become `-`.
        extension: For example `.jsonl`.
        now: The time to use; the local time by default.
    """
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.")
    return f"{safe}-{now or datetime.now():%Y%m%d-%H%M%S}{extension}"


def parse_secrets_runpod(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Turn RunPod's secrets into `HF_TOKEN` and `WANDB_API_KEY`; no value is ever logged.

    A secret replaces an existing value; an absent or empty one leaves it alone.

    Returns:
        Names of the variables that were set.

    Raises:
        ValueError: If neither secret is there.
    """
    found = {
        target: environ[secret].strip()
        for secret, target in _RUNPOD_SECRETS.items()
        if environ.get(secret, "").strip()
    }
    if not found:
        raise ValueError(
            "--parse_secrets_runpod found neither RUNPOD_SECRET_HF_TOKEN nor "
            "RUNPOD_SECRET_WANDB_API_KEY. Add one of them to the pod, or leave the flag out."
        )
    environ.update(found)
    logger.info("Taken from RunPod's secrets: %s", ", ".join(sorted(found)))
    return sorted(found)


def use_hub_token(token: str | None, environ: MutableMapping[str, str] = os.environ) -> None:
    """Make a token from `--hub_token` the one that all calls to the Hub use."""
    if token:
        environ["HF_TOKEN"] = token
