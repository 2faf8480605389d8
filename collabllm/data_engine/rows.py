"""Turn groups as rows of the dataset format: appended a group at a time, resumable."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from collabllm.data_engine.turn_groups import Candidate, TurnGroup
from collabllm.files import JsonLinesWriter
from collabllm.messages import Message, to_chat

logger = logging.getLogger(__name__)


class DatasetWriter(JsonLinesWriter):
    """Appends the rows of a turn at once.

    With `resume`, a group that a kill left incomplete is cut off; `done` has the tasks whose
    conversation has ended, `contexts` the others' conversations up to the next user message.

    Args:
        path: The JSONL file.
        resume: Go on with an existing file.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.done: set[str] = set()
        self.contexts: dict[str, list[Message]] = {}
        super().__init__(path, resume=resume)

    def choose_kept(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep whole groups, and learn how far each conversation has come."""
        groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for record in records:
            if "num_candidates" not in record:
                raise ValueError(f"{self.path}: was not built here; choose another --output.")
            groups.setdefault((record["conv_id"], record["turn_id"]), []).append(record)
        whole = [rows for rows in groups.values() if len(rows) == rows[0]["num_candidates"]]
        for rows in whole:
            chosen = next(row for row in rows if row["chosen"])
            conv_id = chosen["conv_id"]
            if chosen["termination_reason"]:
                self.done.add(conv_id)
                self.contexts.pop(conv_id, None)
            else:
                self.contexts[conv_id] = [
                    *chosen["prompt"],
                    {"role": "assistant", "content": chosen["completion"]},
                    {"role": "user", "content": chosen["next_user"]},
                ]
        kept = [row for rows in whole for row in rows]
        logger.info(
            "Resuming: %d conversations have ended, %d go on, %d half-written rows are cut off.",
            len(self.done),
            len(self.contexts),
            len(records) - len(kept),
        )
        return kept


def to_rows(group: TurnGroup) -> list[dict[str, Any]]:
    """Write a turn's candidates as rows of the dataset format.

    Beside the format's columns: `standard_error` of the score; `rewards` with one number a sampled
    future for each metric, `tokens` and `total`; `sessions` with the futures, each a conversation
    from the candidate on; `proactive`, `chosen`, `candidate_idx`, `num_candidates`, `next_user` and
    `termination_reason` (of the chosen row); and the columns of the task.
    """
    shared = _shared_columns(group)
    return [
        {
            **shared,
            **_candidate_columns(candidate, len(group.prompt)),
            "chosen": position == group.chosen,
            "next_user": (group.next_user or "") if position == group.chosen else "",
            "termination_reason": group.termination_reason if position == group.chosen else "",
        }
        for position, candidate in enumerate(group.candidates)
    ]


def _shared_columns(group: TurnGroup) -> dict[str, Any]:
    """Return what all candidates of a turn share: the conversation so far, and the task."""
    task = group.task
    return {
        "prompt": to_chat(group.prompt),
        "conv_id": task.task_id,
        "turn_id": len(group.prompt),
        "single_turn_prompt": task.single_turn_prompt,
        "single_turn_completion": task.single_turn_completion,
        "single_turn_metadata": dict(task.metadata),
        "task_id": task.task_id,
        "task_desc": task.task_desc,
        "opening": task.opening,
        "facts": [{**asdict(fact), "cues": list(fact.cues)} for fact in task.facts],
        "num_candidates": len(group.candidates),
    }


def _candidate_columns(candidate: Candidate, num_prompt: int) -> dict[str, Any]:
    """Return a candidate's reply, its score and what the score is made of."""
    estimate = candidate.estimate
    names = dict.fromkeys(name for future in estimate.futures for name in future.metrics)
    rewards: dict[str, list[float | None]] = {
        name: [future.metrics[name].value for future in estimate.futures] for name in names
    }
    rewards["tokens"] = [float(future.num_tokens) for future in estimate.futures]
    rewards["total"] = estimate.rewards
    return {
        "completion": estimate.reply,
        "score": estimate.value,
        "standard_error": estimate.standard_error,
        "rewards": rewards,
        "sessions": [_continuation(future.messages, num_prompt) for future in estimate.futures],
        "candidate_idx": candidate.idx,
        "proactive": candidate.proactive,
    }


def _continuation(messages: Sequence[Mapping[str, Any]], num_prompt: int) -> list[Message]:
    spoken = [message for message in to_chat(messages) if message["role"] != "system"]
    return spoken[num_prompt:]
