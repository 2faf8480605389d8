"""Metrics of finished conversations: what each needs, found by name, missing where they failed.

`@metric(name, needs=...)` is the one place that knows what a metric needs.
"""

import asyncio
import difflib
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from collabllm.errors import ContextFullError, ServerError
from collabllm.messages import Message
from collabllm.tasks import Task

if TYPE_CHECKING:
    from collabllm.rewards.judge import Judge

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
Need = Literal["judge", "tokenizer", "sandbox", "facts", "reference", "tests"]
M = TypeVar("M", bound=Metric)
E = TypeVar("E", bound=Extractor)


@dataclass(frozen=True)
class MetricSpec:
    """All that is known of a metric or an extractor; the one place to look it up.

    `needs` is what it cannot do without; `lowest` and `highest` are its limits, None for none;
    `judge_output_tokens` is about how many tokens one call of the judge writes; `lower_is_better`
    is what a report calls better.
    """

    name: str
    function: Any
    needs: frozenset[Need] = frozenset()
    lowest: float | None = 0.0
    highest: float | None = 1.0
    judge_output_tokens: int = 0
    lower_is_better: bool = False

    @property
    def is_share(self) -> bool:
        """Whether its limits lie in [0, 1]."""
        low, high = self.lowest, self.highest
        return low is not None and high is not None and 0 <= low <= high <= 1


_METRICS: dict[str, MetricSpec] = {}
_EXTRACTORS: dict[str, MetricSpec] = {}


def metric(
    name: str,
    *,
    needs: Iterable[Need] = (),
    lowest: float | None = 0.0,
    highest: float | None = 1.0,
    judge_output_tokens: int = 60,
    lower_is_better: bool = False,
) -> Callable[[M], M]:
    """Register a metric, in place of any of the same name.

    Args:
        name: Name in weights and flags.
        needs: `judge` (--judge_model), `tokenizer` (the assistant's), `sandbox` (for foreign code),
            and of the tasks `facts`, `reference` or `tests`.
        lowest: Its least value; None where there is none.
        highest: Its greatest value; None where there is none.
        judge_output_tokens: What one call of the judge writes, for a build's plan.
        lower_is_better: Less of it is better, as of errors; an evaluation says so.
    """

    def register(function: M) -> M:
        tokens = judge_output_tokens if "judge" in needs else 0
        needed = frozenset(needs)
        spec = MetricSpec(name, function, needed, lowest, highest, tokens, lower_is_better)
        _METRICS[name] = spec
        return function

    return register


def extractor(
    name: str, *, needs: Iterable[Need] = (), judge_output_tokens: int = 0
) -> Callable[[E], E]:
    """Register an extractor, which stands before the arrow in `document->bleu`; see `metric`."""

    def register(function: E) -> E:
        _EXTRACTORS[name] = MetricSpec(
            name, function, frozenset(needs), judge_output_tokens=judge_output_tokens
        )
        return function

    return register


def register_metric(name: str, function: Metric, **facts: Any) -> None:
    """Add a metric of your own, or replace one; `facts` are those of `metric`."""
    _load_built_in()
    metric(name, **facts)(function)


def known_metrics() -> list[str]:
    """Return the names of all metrics."""
    _load_built_in()
    return sorted(_METRICS)


def find_specs(name: str) -> list[MetricSpec]:
    """Return what is known of a metric and, for `document->bleu`, first of its extractor.

    Raises:
        ValueError: If there is none of that name; the message offers the nearest.
    """
    _load_built_in()
    before, _, last = name.rpartition(_ARROW)
    specs = []
    for part, known in ((before, _EXTRACTORS), (last, _METRICS)):
        if part and part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
            raise ValueError(f"There is no metric or extractor {part!r}; {hint}")
        if part:
            specs.append(known[part])
    return specs


def registered(names: Iterable[str]) -> dict[str, MetricSpec]:
    """Return what is known of metrics, by name; of one that is not registered nothing."""
    _load_built_in()
    known = {name: _METRICS.get(name.rpartition(_ARROW)[2]) for name in names}
    return {name: spec for name, spec in known.items() if spec is not None}


def needs_of(name: str) -> frozenset[Need]:
    """Return what a metric needs, its extractor's needs included."""
    return frozenset().union(*(spec.needs for spec in find_specs(name)))


def check_metrics(names: Iterable[str], tools: MetricTools) -> None:
    """Check, before a run, that every metric is known and has what it needs.

    Raises:
        ValueError: If not; the message names the metric and the remedy.
        SandboxUnavailableError: If model-written code would run without isolation.
    """
    for name in names:
        needs = needs_of(name)
        if "judge" in needs and tools.judge is None:
            raise ValueError(f"The metric {name!r} needs a judge: give --judge_model.")
        if "tokenizer" in needs and tools.count_tokens is None:
            raise ValueError(f"The metric {name!r} needs the assistant's tokenizer.")
        if "sandbox" in needs and not tools.allow_unsafe_code:
            from collabllm.rewards.sandbox.run import check_isolation

            check_isolation()


def _load_built_in() -> None:
    """Import the modules whose metrics and extractors are ours; each registers its own."""
    import_module("collabllm.rewards.metrics")


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
    *extractors, spec = find_specs(name)
    try:
        for first in extractors:
            artefact = await first.function(conversation, task, tools)
            last = Message(role="assistant", content=artefact)
            conversation = [*conversation[:-1], last]
        value = await spec.function(conversation, task, tools)
    except MetricMissingError as missing:
        applicable = not isinstance(missing, NotApplicableError)
        return MetricValue(None, str(missing), applicable)
    except (ServerError, ContextFullError) as error:
        return MetricValue(None, f"{type(error).__name__}: {error}")
    if value is None:
        return MetricValue(None, "the metric gave None")
    found = value if isinstance(value, MetricValue) else MetricValue(float(value))
    if found.value is not None and not math.isfinite(found.value):
        return MetricValue(None, f"the metric gave {found.value}")
    return found


def last_reply(conversation: Sequence[Message]) -> str:
    """Return the last assistant message.

    Raises:
        MetricMissingError: If there is none.
    """
    for message in reversed(conversation):
        if message["role"] == "assistant":
            return message["content"]
    raise MetricMissingError("the assistant said nothing")
