"""Scores of conversations: computed once, kept, and completed when metrics are added."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabllm.errors import CostLimitError
from collabllm.evaluation.measures import BUILT_IN, measure, score_replies
from collabllm.evaluation.plan import Variant
from collabllm.evaluation.score_table import score_key
from collabllm.event_loop import get_loop
from collabllm.files import JsonLinesWriter
from collabllm.rewards.registry import MetricTools, MetricValue
from collabllm.simulation.record import Record
from collabllm.simulation.transcripts import read_transcripts
from collabllm.tasks import Task

Key = tuple[str, str, str, str, int]
RESCORE_ALL = "all"


class ScoreWriter(JsonLinesWriter):
    """Appends the scores of conversations; `done` has those that are kept, by conversation.

    Failed conversations run again, and their scores go; a later line of a conversation replaces the
    former one.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.done: dict[Key, dict[str, Any]] = {}
        super().__init__(path, resume=resume)

    def choose_kept(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep the last score of each conversation that did not fail."""
        self.done = {score_key(line): line for line in records if not line["failed"]}
        return list(self.done.values())


@dataclass(frozen=True)
class Pair:
    """An arm's training and a user; `tools` count tokens as the arm does."""

    arm: str
    training_seed: str
    user: str
    tools: MetricTools

    def key(self, task_id: str, rollout_idx: int) -> Key:
        """Return the key of one conversation."""
        return self.arm, self.training_seed, self.user, task_id, rollout_idx


class Scorer:
    """Scores the conversations of one pair at once, and writes each when it is ready.

    Args:
        pair: Who talks.
        opened: The tasks of the conversations, by id.
        metrics: What is measured.
        writer: Where scores go.
        rescore: Metrics to compute anew; `all` for every one.
    """

    def __init__(
        self,
        pair: Pair,
        opened: Mapping[str, tuple[Task, Variant]],
        metrics: Sequence[str],
        writer: ScoreWriter,
        rescore: Sequence[str] = (),
    ) -> None:
        self.pair, self.opened, self.metrics = pair, opened, list(metrics)
        self.writer, self.rescore = writer, set(rescore)
        self._waiting: list[tuple[Record, Future[dict[str, MetricValue]]]] = []

    def unscored(self, file: Path) -> Iterator[Record]:
        """Yield kept conversations that lack a metric, or the whole score after a kill."""
        if not file.is_file():
            return
        for line in read_transcripts(file):
            if not line["failed"] and line["task_id"] in self.opened:
                lacking = self._lacking(self.pair.key(line["task_id"], line["rollout_idx"]))
                record = Record.from_json(line)
                if lacking is None or (lacking and not record.result.why_unscored):
                    yield record

    def add(self, record: Record) -> None:
        """Start to score a conversation, or what its kept score lacks."""
        lacking = self._lacking(self.pair.key(record.task_id, record.rollout_idx))
        task = self.opened[record.task_id][0]
        if lacking is None:
            job = measure(record, task, self.metrics, self.pair.tools)
        else:
            job = _measure_some(record, task, lacking, self.pair.tools)
        self._waiting.append((record, asyncio.run_coroutine_threadsafe(job, get_loop())))
        self.write_ready()

    def write_ready(self) -> None:
        """Write the scores that are ready, so that a kill loses no judge's work."""
        ready = [entry for entry in self._waiting if entry[1].done()]
        self._waiting = [entry for entry in self._waiting if entry not in ready]
        self._write(ready)

    def finish(self) -> None:
        """Wait for all scores, and write them."""
        waiting, self._waiting = self._waiting, []
        self._write(waiting)

    def cancel(self) -> None:
        """Drop what is not ready; the next run scores it."""
        for _, future in self._waiting:
            future.cancel()
        self._waiting = []

    def _lacking(self, key: Key) -> list[str] | None:
        """Return the metrics that a kept score lacks, failed in, or is to repeat; None for all."""
        kept = self.writer.done.get(key)
        if kept is None or RESCORE_ALL in self.rescore:
            return None
        return [
            metric
            for metric in self.metrics
            if metric not in kept["values"] or metric in kept["missing"] or metric in self.rescore
        ] + [metric for metric in BUILT_IN if metric in self.rescore]

    def _write(self, ready: Sequence[tuple[Record, Future[dict[str, MetricValue]]]]) -> None:
        for record, future in ready:
            try:
                values = future.result()
            except CostLimitError:  # the judge's; the next run scores it
                continue
            kept = self.writer.done.get(self.pair.key(record.task_id, record.rollout_idx))
            if kept is not None and RESCORE_ALL not in self.rescore:
                self.writer.write(_complete(kept, values))
                continue
            task, variant = self.opened[record.task_id]
            replies = score_replies(record.result.messages, task, self.pair.tools)
            pair = self.pair
            self.writer.write(
                to_score(pair.arm, pair.training_seed, pair.user, variant, record, values, replies)
            )


async def _measure_some(
    record: Record, task: Task, names: Sequence[str], tools: MetricTools
) -> dict[str, MetricValue]:
    """Score a conversation in some metrics, built-in ones included."""
    found = await measure(record, task, [name for name in names if name not in BUILT_IN], tools)
    return {name: found[name] for name in names}


def _complete(kept: Mapping[str, Any], values: Mapping[str, MetricValue]) -> dict[str, Any]:
    """Return a score with some values in place of the former ones."""
    missing = {name: why for name, why in kept["missing"].items() if name not in values}
    missing |= {n: v.reason for n, v in values.items() if v.value is None and v.applicable}
    found = {name: value.value for name, value in values.items()}
    tampered = [name for name in kept.get("tampered", ()) if name not in values]
    return {
        **kept,
        "values": {**kept["values"], **found},
        "missing": missing,
        "tampered": [*tampered, *_tampered(values)],
    }


def _tampered(values: Mapping[str, MetricValue]) -> list[str]:
    return [name for name, value in values.items() if value.is_tampered]


def to_score(
    arm: str,
    training_seed: str,
    user: str,
    variant: Variant,
    record: Record,
    values: Mapping[str, MetricValue],
    replies: Sequence[Mapping[str, int]],
) -> dict[str, Any]:
    """Write one conversation's values, and those of its replies, as a line of the scores file."""
    reason = record.result.termination_reason
    return {
        "arm": arm,
        "training_seed": training_seed,
        "user": user,
        "task": variant.task,
        "opening": variant.opening,
        "num_told": variant.num_told,
        "num_facts": variant.num_facts,
        "cluster": variant.cluster,
        "task_id": record.task_id,
        "rollout_idx": record.rollout_idx,
        "termination_reason": str(reason),
        "failed": reason.is_failure,
        "audit": record.audit,
        "user_measures": record.user_measures,
        "replies": list(replies),
        "values": {name: value.value for name, value in values.items()},
        "missing": {
            name: value.reason
            for name, value in values.items()
            if value.value is None and value.applicable
        },
        "tampered": _tampered(values),
    }
