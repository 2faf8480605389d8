"""Compare models on the same tasks with the same simulated users, and show the conversations.

In a notebook:

    from collabllm.evaluation import evaluate
    results = evaluate(
        arm=["name=base", "name=SFT,lora_path=outputs/demo_sft"],
        tasks="demo_development",
        num_tasks=8,
    )
    [(d.arm, d.metric, d.mean, d.low, d.high, d.verdict) for d in results.primary_differences()]
"""

from typing import TYPE_CHECKING, Any

_HOMES = {
    "EvaluationSettings": "settings",
    "Results": "results",
    "evaluate": "run",
    "read_results": "results",
    "render_results": "run",
}
__all__ = ["EvaluationSettings", "Results", "evaluate", "read_results", "render_results"]


if TYPE_CHECKING:
    from collabllm.evaluation.results import Results, read_results
    from collabllm.evaluation.run import evaluate, render_results
    from collabllm.evaluation.settings import EvaluationSettings


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"collabllm.evaluation.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, so that notebooks complete them."""
    return sorted(__all__)
