"""How a model is divided over processes, by what the launcher set, before anything starts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Sharding:
    """Which library divides the model, if any."""

    kind: Literal["fsdp", "deepspeed"] | None = None
    version: int = 2
    """Version of FSDP."""

    @property
    def keeps_float32(self) -> bool:
        """Whether the adapter may train in float32 beside a bf16 base.

        FSDP2 wants one type among trainable weights only. FSDP1 flattens all weights of a layer
        into one; DeepSpeed keeps float32 copies in its optimizer and gathers one type only.
        """
        return self.kind is None or (self.kind == "fsdp" and self.version == 2)


def find_sharding(config: Any, environ: Mapping[str, str] = os.environ) -> Sharding:
    """Read what `accelerate launch` set, or the trainer's own flags.

    accelerate's own state tells it only once an `Accelerator` exists, which is after the model has
    loaded.

    Args:
        config: TRL's config of the run.
        environ: The environment.
    """
    if _is_on(environ, "ACCELERATE_USE_DEEPSPEED") or getattr(config, "deepspeed", None):
        return Sharding("deepspeed")
    if _is_on(environ, "ACCELERATE_USE_FSDP") or getattr(config, "fsdp", None):
        given = getattr(config, "fsdp_config", None) or {}
        version = given.get("version", given.get("fsdp_version", environ.get("FSDP_VERSION", 1)))
        return Sharding("fsdp", int(version))
    return Sharding()


def _is_on(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "false").lower() in ("true", "1", "yes")
