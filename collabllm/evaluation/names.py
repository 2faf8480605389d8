"""Names of arms and users: each stands in file names, and none may be taken for another."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from collabllm.evaluation.results import POOLED

_MAX_BYTES = 100
_MAX_FILE_BYTES = 240  # of the 255 that file systems take; a lock's name is longer


def transcript_file(folder: Path, arm: str, user: str, training_seed: str = "") -> Path:
    """Return where an evaluation keeps the conversations of an arm (or one of its trainings)."""
    of_seed = f"@{training_seed}" if training_seed else ""
    return folder / "transcripts" / f"{arm}{of_seed}--{user}.jsonl"


def check_names(
    arms: Sequence[str],
    users: Sequence[str],
    training_seeds: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Check, before anything is paid for, that names fit into files and differ there.

    Args:
        arms: Names of the arms.
        users: Names of the users.
        training_seeds: Names of the trainings of the arms that have several.

    Raises:
        ValueError: If a name does not fit, is used twice, or two pairs of names share a file; the
            text names the flag.
    """
    if POOLED in users:
        raise ValueError(f"--user name={POOLED!r}: so the results call the mean over all of them.")
    for flag, names in (("--arm", arms), ("--user", users)):
        for name in names:
            _check_name(flag, name)
        for same in _alike(names):
            raise ValueError(
                f"{flag}: {' and '.join(map(repr, same))} need names of their own (name=…); a "
                "file's name may not tell capital letters."
            )
    seeds = training_seeds or {}
    trainings = [(arm, seed) for arm in arms for seed in seeds.get(arm) or [""]]
    pairs = [(arm, user, seed) for arm, seed in trainings for user in users]
    files = [transcript_file(Path(), *pair).name for pair in pairs]
    for file in files:
        if len(file.encode("utf-8", "replace")) > _MAX_FILE_BYTES:
            raise ValueError(
                f"{file}: this file's name is too long; shorten the arm's or the run's."
            )
    for same in _alike(files):
        found = [pair for pair, file in zip(pairs, files, strict=True) if file in same]
        named = " and ".join(" with ".join(pair[:2]) for pair in found)
        raise ValueError(f"{named} would share the file {same[0]}; rename an arm or a user.")


def _check_name(flag: str, name: str) -> None:
    if (
        not name.isprintable()
        or not name.strip()
        or name.startswith(".")
        or any(char in name for char in "/\\")
        or len(name.encode("utf-8", "replace")) > _MAX_BYTES
    ):
        raise ValueError(
            f"{flag} name={name[:200]!r}: a name stands in file names, so it has printable letters "
            f"without slashes, no dot in front, and at most {_MAX_BYTES} bytes."
        )


def _alike(names: Sequence[str]) -> list[list[str]]:
    """Return groups of names that are one in a file system that does not tell capitals."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.casefold()].append(name)
    return [group for group in groups.values() if len(group) > 1]
