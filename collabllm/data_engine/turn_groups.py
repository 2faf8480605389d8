"""What growing conversations takes and yields: its settings, and the candidates of a turn."""

from dataclasses import dataclass, field

from collabllm.messages import Message
from collabllm.prompts import DEFAULT_SYSTEM_PROMPT, load_prompt
from collabllm.rewards.multiturn import RewardEstimate, RewardSettings
from collabllm.tasks import Task


@dataclass(frozen=True)
class GrowthSettings:
    """How conversations grow.

    Of `num_candidates` replies per turn, the share `proactive_share` (rounded down) is written
    under `proactive_prompt` instead of `system_prompt`; futures are always written under the
    latter. Replies that the token limit cut are no candidates; with `keep_cut_replies` they are, up
    to their last whole sentence.
    """

    reward: RewardSettings
    num_candidates: int = 3
    proactive_share: float = 0.5
    max_turns: int = 4
    system_prompt: str | None = DEFAULT_SYSTEM_PROMPT
    proactive_prompt: str = field(default_factory=lambda: load_prompt("assistant_proactive"))
    seed: int = 0
    keep_cut_replies: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: If one is out of range.
        """
        for name in ("num_candidates", "max_turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.proactive_share <= 1:
            raise ValueError(f"proactive_share must be in [0, 1], got {self.proactive_share}.")

    def is_proactive(self, idx: int) -> bool:
        """Tell whether the candidate at this position gets the proactive prompt."""
        return idx >= self.num_candidates - int(self.proactive_share * self.num_candidates)


@dataclass(frozen=True)
class Candidate:
    """One reply to a turn, under which prompt it was written, and its reward."""

    idx: int
    proactive: bool
    estimate: RewardEstimate


@dataclass(frozen=True)
class TurnGroup:
    """The rewarded candidates of one turn, and how the conversation went on.

    `prompt` has no system message; `chosen` is a position in `candidates`; `next_user` is None and
    `termination_reason` set where the conversation ended. `lost` names, with counts, why candidates
    are not there. A group without candidates is a failure and is tried again by a resumed run.
    """

    task: Task
    prompt: list[Message]
    candidates: list[Candidate]
    chosen: int = 0
    next_user: str | None = None
    termination_reason: str = ""
    lost: dict[str, int] = field(default_factory=dict)
