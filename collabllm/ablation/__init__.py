"""One training in several ways and with several seeds, compared on the same tasks.

ablate(train="configs/demo_grpo.yaml", arms={"near": {"window": 0}, "far": {"window": 2}})
"""

from typing import TYPE_CHECKING, Any

from collabllm.ablation.settings import AblationSettings

if TYPE_CHECKING:
    from collabllm.ablation.run import ablate

__all__ = ["AblationSettings", "ablate"]


def __getattr__(name: str) -> Any:
    if name == "ablate":  # loads torch
        from collabllm.ablation.run import ablate

        return ablate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
