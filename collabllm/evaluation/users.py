"""The panel of simulated users that all arms meet."""

from collabllm.simulation.user_models.registry import UserSpec, to_user_spec

__all__ = ["UserSpec", "parse_user"]


def parse_user(text: str) -> UserSpec:
    """Read `sharded`, `openai`, or `name=hasty,kind=sharded,patience=1`.

    Raises:
        ValueError: If a kind, an option or a value does not fit.
    """
    return to_user_spec(text)
