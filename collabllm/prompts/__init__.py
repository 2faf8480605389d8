"""The prompts of the project, one text file each."""

import hashlib
from importlib.resources import files


def load_prompt(name: str) -> str:
    """Read the prompt `name` from the package.

    Args:
        name: File name without `.txt`.

    Raises:
        ValueError: If there is no such prompt; the message lists those there are.
    """
    names = _names()
    if name not in names:
        raise ValueError(f"There is no prompt {name!r}; known prompts: {', '.join(names)}.")
    return files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8").strip()


def prompt_hashes() -> dict[str, str]:
    """Return a short hash of every prompt, for the records of a run."""
    return {name: hashlib.sha256(load_prompt(name).encode()).hexdigest()[:16] for name in _names()}


def _names() -> list[str]:
    folder = files(__name__)
    return sorted(f.name.removesuffix(".txt") for f in folder.iterdir() if f.name.endswith(".txt"))


DEFAULT_SYSTEM_PROMPT = load_prompt("assistant_system")
