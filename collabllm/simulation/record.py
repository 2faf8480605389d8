"""One conversation of a batch, as it is handed out and as a line of a transcript file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from collabllm.provenance import library_versions
from collabllm.simulation.endings import FAILURES, TerminationReason
from collabllm.simulation.simulator import ReplyInfo, RolloutResult
from collabllm.simulation.user_models import UserTurnResult


@dataclass(frozen=True)
class Record:
    """One conversation of a batch: which one it is, how it went, and what made it.

    `audit` has the user's faults, `user_measures` how it talks; see `audit`.
    `shared_time` tells that others were under way at once: then its seconds are those of the batch,
    and no measure of this conversation.
    """

    task_id: str
    rollout_idx: int
    result: RolloutResult
    audit: dict[str, bool]
    goal: str
    assistant: str
    user: str
    prompt_hash: str
    persona: str = ""
    shared_time: bool = False
    user_measures: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the line of a transcript file."""
        result = asdict(self.result)
        return {
            "task_id": self.task_id,
            "rollout_idx": self.rollout_idx,
            "single_turn_prompt": self.goal,
            **result,
            "termination_reason": str(self.result.termination_reason),
            "terminated_by_user": self.result.terminated_by_user,
            "failed": self.result.termination_reason in FAILURES,
            "audit": self.audit,
            "assistant": self.assistant,
            "user": self.user,
            "prompt_hash": self.prompt_hash,
            "persona": self.persona,
            "shared_time": self.shared_time,
            "user_measures": self.user_measures,
            "versions": library_versions(),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Record":
        """Read a line of a transcript file back."""
        result = RolloutResult(
            line["messages"],
            [
                UserTurnResult(**{**turn, "slips": tuple(turn.get("slips", ()))})
                for turn in line["user_turns"]
            ],
            TerminationReason(line["termination_reason"]),
            line["usage"],
            line["timings"],
            line["seeds"],
            line["error"],
            [ReplyInfo(**reply) for reply in line.get("replies", ())],
        )
        return cls(
            line["task_id"],
            line["rollout_idx"],
            result,
            line["audit"],
            line["single_turn_prompt"],
            line["assistant"],
            line["user"],
            line["prompt_hash"],
            line.get("persona", ""),
            line.get("shared_time", True),
            line.get("user_measures", {}),
        )
