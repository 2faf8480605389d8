"""Metrics of finished conversations: found by name, run at once, missing where they failed."""

import asyncio
import difflib
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from collabllm.errors import ContextFullError, ServerError
from collabllm.messages import Message
from collabllm.tasks import Task

if TYPE_CHECKING:
    from collabllm.rewards.judge import Judge

logger = logging.getLogger(__name__)

LOUD_MISSING_SHARE = 0.1
TAMPERED = "tampered"
_ARROW = "->"


class MetricMissingError(Exception):
    """A metric has no value for a conversation; the text says why."""


class NotApplicableError(MetricMissingError):
    """A metric has no meaning for this task; nothing has failed."""


@dataclass(frozen=True)
class MetricValue:
    """A metric of one conversation; `value` is None where there is none, `reason` says why.

    `applicable` is False where the metric has no meaning for the task; that is no failure.
    """

    value: float | None
    reason: str = ""
    applicable: bool = True

    @property
    def is_tampered(self) -> bool:
        """Whether the value is 0 because the metric itself was attacked."""
        return self.value is not None and self.reason.startswith(TAMPERED)


@dataclass
class MetricTools:
    """What metrics need besides the conversation and its task.

    `count_tokens` is the assistant's own, `judge` a language model that rates and extracts,
    `allow_unsafe_code` runs model-written code even where it cannot be isolated.
    """

    count_tokens: Callable[[str], int] | None = None
    judge: "Judge | None" = None
    allow_unsafe_code: bool = False


Metric = Callable[[Sequence[Message], Task, MetricTools], Awaitable[float | MetricValue]]
"""Gives the value of a finished conversation, or raises MetricMissingError.

A `MetricValue` is for a value that needs a reason, such as 0 because of `TAMPERED`.
"""
Extractor = Callable[[Sequence[Message], Task, MetricTools], Awaitable[str]]
"""Gives the final artefact of a conversation, or raises MetricMissingError."""

_METRICS: dict[str, str | Metric] = {
    "token_amount": "metrics.text:token_amount",
    "repetition": "metrics.text:repetition",
    "bleu": "metrics.text:bleu",
    "chrf": "metrics.text:chrf",
    "accuracy": "metrics.answer:accuracy",
    "accuracy_judged": "judge:accuracy_judged",
    "interactivity": "judge:interactivity",
    "pass_rate": "metrics.code:pass_rate",
    "facts_elicited": "metrics.facts:facts_elicited",
    "facts_used": "metrics.facts:facts_used",
    "over_asking": "metrics.facts:over_asking",
}
_EXTRACTORS: dict[str, str | Extractor] = {
    "document": "judge:extract_document",
    "code": "extraction:extract_code",
    "answer": "extraction:extract_answer",
}
_NEED_JUDGE = ("accuracy_judged", "interactivity", "document")


def register_metric(name: str, metric: Metric) -> None:
    """Add a metric of your own, or replace one."""
    _METRICS[name] = metric


def known_metrics() -> list[str]:
    """Return the names of all metrics."""
    return sorted(_METRICS)


def check_metrics(names: Iterable[str], tools: MetricTools) -> None:
    """Check, before a run, that every metric is known and has what it needs.

    Raises:
        ValueError: If not; the message names the metric and the remedy.
        SandboxUnavailableError: If model-written code would run without isolation.
    """
    for name in names:
        extractor, metric = _split(name)
        for part, known in ((extractor, _EXTRACTORS), (metric, _METRICS)):
            if part and part not in known:
                near = difflib.get_close_matches(part, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
                raise ValueError(f"There is no metric or extractor {part!r}; {hint}")
            if part in _NEED_JUDGE and tools.judge is None:
                raise ValueError(f"The metric {name!r} needs a judge: give --judge_model.")
        if metric == "token_amount" and tools.count_tokens is None:
            raise ValueError("The metric 'token_amount' needs the assistant's tokenizer.")
        if metric == "pass_rate" and not tools.allow_unsafe_code:
            from collabllm.rewards.sandbox.run import check_isolation

            check_isolation()


async def score_conversation(
    conversation: Sequence[Message], task: Task, names: Sequence[str], tools: MetricTools
) -> dict[str, MetricValue]:
    """Compute several metrics of one conversation at once.

    Args:
        conversation: A finished conversation; unchanged.
        task: What it was about.
        names: As in `known_metrics`; `document->bleu` extracts the final artefact first.
        tools: What the metrics need.

    Returns:
        By name, a value or the reason why there is none.

    Raises:
        CostLimitError: If the cost limit is reached.
    """
    values = await asyncio.gather(*(_score(conversation, task, name, tools) for name in names))
    return dict(zip(names, values, strict=True))


async def _score(
    conversation: Sequence[Message], task: Task, name: str, tools: MetricTools
) -> MetricValue:
    extractor, metric = _split(name)
    try:
        if extractor:
            artefact = await _find(_EXTRACTORS, extractor)(conversation, task, tools)
            last = Message(role="assistant", content=artefact)
            conversation = [*conversation[:-1], last]
        value = await _find(_METRICS, metric)(conversation, task, tools)
    except MetricMissingError as missing:
        applicable = not isinstance(missing, NotApplicableError)
        return MetricValue(None, str(missing), applicable)
    except (ServerError, ContextFullError) as error:
        return MetricValue(None, f"{type(error).__name__}: {error}")
    if isinstance(value, MetricValue):
        return value
    if not math.isfinite(value):
        return MetricValue(None, f"the metric gave {value}")
    return MetricValue(float(value))


def _split(name: str) -> tuple[str, str]:
    extractor, _, metric = name.rpartition(_ARROW)
    return extractor, metric


def _find(table: Mapping[str, Any], name: str) -> Any:
    """Load a built-in one when it is first used; some need large libraries."""
    entry = table[name]
    if not isinstance(entry, str):
        return entry
    module, _, function = entry.partition(":")
    return getattr(import_module(f"collabllm.rewards.{module}"), function)


def last_reply(conversation: Sequence[Message]) -> str:
    """Return the last assistant message.

    Raises:
        MetricMissingError: If there is none.
    """
    for message in reversed(conversation):
        if message["role"] == "assistant":
            return message["content"]
    raise MetricMissingError("the assistant said nothing")


@dataclass(frozen=True)
class MetricSummary:
    """Mean over the values that exist, and how many are missing for which reasons.

    Conversations to which the metric does not apply are in neither number. `num_tampered` of the
    values are 0 because the assistant worked on the metric instead of the task.
    """

    mean: float | None
    num_values: int
    num_missing: int
    reasons: dict[str, int] = field(default_factory=dict)
    num_tampered: int = 0

    @property
    def missing_share(self) -> float:
        """Share of missing values, in [0, 1]."""
        return self.num_missing / max(self.num_values + self.num_missing, 1)


def summarize(scored: Iterable[Mapping[str, MetricValue]]) -> dict[str, MetricSummary]:
    """Average each metric over the conversations in which it has a value.

    Logs a warning for every metric that is missing in more than `LOUD_MISSING_SHARE` of them, or
    that anyone tampered with.
    """
    columns: dict[str, list[MetricValue]] = {}
    for values in scored:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    summaries = {name: _summarize(values) for name, values in columns.items()}
    for name, summary in summaries.items():
        if summary.num_tampered:
            logger.warning(
                "ATTENTION: %d of %d conversations tampered with %s; they count as 0.",
                summary.num_tampered,
                summary.num_values,
                name,
            )
        if summary.missing_share > LOUD_MISSING_SHARE:
            logger.warning(
                "ATTENTION: %s is missing in %d of %d conversations (%s); its mean says little.",
                name,
                summary.num_missing,
                summary.num_values + summary.num_missing,
                ", ".join(f"{n}x {reason}" for reason, n in summary.reasons.items()),
            )
    return summaries


def _summarize(values: Sequence[MetricValue]) -> MetricSummary:
    numbers = [value.value for value in values if value.value is not None]
    missing = [value for value in values if value.value is None and value.applicable]
    mean = sum(numbers) / len(numbers) if numbers else None
    reasons = Counter(value.reason for value in missing)
    tampered = sum(value.is_tampered for value in values)
    return MetricSummary(mean, len(numbers), len(missing), dict(reasons), tampered)
