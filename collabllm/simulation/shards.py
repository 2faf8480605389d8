"""A part of a run, for machines that know nothing of each other: `--shard I/N`."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from collabllm.settings import Settings, setting


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `num_shards`; which one a conversation is in, its hash says.

    So shards do not depend on the order of the tasks, and more tasks move none.
    """

    index: int
    num_shards: int

    def __post_init__(self) -> None:
        """Refuse a part that is not there."""
        if not 1 <= self.index <= self.num_shards:
            raise ValueError(f"shard must be I/N with I from 1 to N, got {self}.")

    def __str__(self) -> str:
        return f"{self.index}/{self.num_shards}"

    def __contains__(self, key: tuple[str, int]) -> bool:
        """Tell whether (task id, rollout) is in this part."""
        return _hash(key) % self.num_shards == self.index - 1


WHOLE = Shard(1, 1)


def describe_whole(keys: Iterable[tuple[str, int]]) -> str:
    """Tell a whole run from others by its conversations, in any order."""
    number = total = 0
    for key in keys:
        number, total = number + 1, (total + _hash(key)) % 2**64
    return f"{number} conversations ({total:016x})"


def _hash(key: tuple[str, int]) -> int:
    task_id, rollout_idx = key
    digest = hashlib.sha256(f"{rollout_idx}\0{task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def to_shard(text: str | None) -> Shard:
    """Read `I/N`; None is the whole run.

    Raises:
        ValueError: If it is not of this form.
    """
    if text is None:
        return WHOLE
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise ValueError(f"shard must be I/N, such as 2/8, got {text!r}.")
    return Shard(int(found[1]), int(found[2]))


@dataclass(kw_only=True)
class ShardSettings(Settings):
    """Which part of a run this machine does."""

    _argument_group_name = "the part of a run"

    shard: str | None = setting(
        None,
        "do only part I of N, such as 2/8; scripts/merge_runs.py puts the parts together",
        metavar="I/N",
    )

    def __post_init__(self) -> None:
        """Refuse a part that is not there."""
        super().__post_init__()
        to_shard(self.shard)
