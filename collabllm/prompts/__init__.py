"""The prompts of the project, one text file each."""

from importlib.resources import files


def load_prompt(name: str) -> str:
    """Read the prompt `name` from the package.

    Args:
        name: File name without `.txt`.

    Raises:
        ValueError: If there is no such prompt; the message lists those there are.
    """
    folder = files(__name__)
    names = sorted(f.name.removesuffix(".txt") for f in folder.iterdir() if f.name.endswith(".txt"))
    if name not in names:
        raise ValueError(f"There is no prompt {name!r}; known prompts: {', '.join(names)}.")
    return folder.joinpath(f"{name}.txt").read_text(encoding="utf-8").strip()
