"""The answer in one sentence: what the primary comparisons show, and never more than that."""

from collections.abc import Sequence
from dataclasses import dataclass

from collabllm.evaluation.report.formats import count_digits

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """One arm against the reference in a primary outcome.

    `mean` is the difference, with its interval where there are tasks enough; `p_value` is corrected
    for all primary comparisons, None where no test could be made.
    """

    arm: str
    mean: float
    low: float | None
    high: float | None
    p_value: float | None

    @property
    def digits(self) -> int:
        """How many decimals tell something."""
        return count_digits(self.low, self.high)

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is shown, 0 where these tasks cannot tell."""
        if self.p_value is None or not self.p_value < ALPHA or not self.mean:
            return 0
        if self.low is not None and self.high is not None and self.low <= 0 <= self.high:
            return 0
        return 1 if self.mean > 0 else -1


@dataclass(frozen=True)
class Outcome:
    """A primary outcome: a metric, where it was measured, and each arm's comparison."""

    metric: str
    where: str
    comparisons: Sequence[Comparison]


@dataclass(frozen=True)
class _Words:
    """How a sentence speaks of a metric: verbs of one arm and of several, degrees, object, noun."""

    verb: str
    verbs: str
    more: str
    less: str
    object: str
    noun: str


_WORDS = {
    "facts_elicited": _Words(
        "elicits", "elicit", "more", "less", "of the needed facts", "the needed facts elicited"
    ),
    "facts_used": _Words("uses", "use", "more", "less", "of the facts", "the facts used"),
    "first_reply_asks": _Words(
        "asks", "ask", "more often", "less often", "", "how often the first reply asks"
    ),
    "result": _Words(
        "is graded", "are graded", "higher", "lower", "for the result", "the grade of the result"
    ),
    "interaction": _Words(
        "is graded",
        "are graded",
        "higher",
        "lower",
        "for the interaction",
        "the grade of the interaction",
    ),
    "asks_needlessly": _Words(
        "asks", "ask", "more often", "less often", "needlessly", "how often it asks needlessly"
    ),
    "over_asking": _Words(
        "has",
        "have",
        "more",
        "less",
        "of all questions needless",
        "the share of needless questions",
    ),
}


def to_sentence(
    outcomes: Sequence[Outcome], reference: str, sample: str, units: str = "tasks"
) -> str:
    """Write the answer.

    A difference is claimed only where its corrected p-value is under 0.05. Of all others the
    sentence says that they cannot be told, which is not that there is no difference.

    Args:
        outcomes: The primary ones, the most important first.
        reference: The arm that all are compared with.
        sample: What was looked at, such as `60 tasks in 12 domains`.
        units: What cannot tell, where it cannot.
    """
    compared = [outcome for outcome in outcomes if outcome.comparisons]
    if not compared:
        return f"Nothing was compared with {reference}; {sample}."
    claims = [claim for outcome in compared for claim in _claim(outcome, reference)]
    unknown = _unknown(compared, reference, units)
    parts = [", and ".join(claims), unknown] if claims else [unknown]
    sentence = ", but ".join(filter(None, parts))
    return f"{sentence}; {_without_value(outcomes)}{sample}."


def _without_value(outcomes: Sequence[Outcome]) -> str:
    """Name the outcomes that nothing can be said of."""
    found = [
        f"{_words_of(outcome.metric).noun} {outcome.where}".strip()
        for outcome in outcomes
        if not outcome.comparisons
    ]
    return f"{_list(found)} {'has' if len(found) == 1 else 'have'} no value; " if found else ""


def _claim(outcome: Outcome, reference: str) -> list[str]:
    """Write what is shown of an outcome, upwards and downwards."""
    words = _words_of(outcome.metric)
    clauses = []
    for sign, degree in ((1, words.more), (-1, words.less)):
        found = [c for c in outcome.comparisons if c.sign == sign]
        rest = " ".join(filter(None, (degree, words.object, f"than {reference}", outcome.where)))
        if len(found) == 1:
            (c,) = found
            size = f"{abs(c.mean):.{c.digits}f}"
            clauses.append(f"{c.arm} {words.verb} {size} {rest}{_interval(c, sign)}")
        elif found:
            arms = _list([f"{c.arm} ({_signed(c)})" for c in found])
            clauses.append(f"{arms} {words.verbs} {rest}")
    return clauses


def _unknown(outcomes: Sequence[Outcome], reference: str, units: str) -> str:
    """Write what the tasks cannot tell, with the numbers where there is but one."""
    by_arms: dict[tuple[str, ...], list[tuple[Outcome, Comparison]]] = {}
    for outcome in outcomes:
        found = [c for c in outcome.comparisons if not c.sign]
        if found:
            by_arms.setdefault(tuple(c.arm for c in found), []).append((outcome, found[0]))
    clauses = []
    for arms, items in by_arms.items():
        nouns = []
        for outcome, first in items:
            noun = f"{_words_of(outcome.metric).noun} {outcome.where}".strip()
            numbers = f" ({_signed(first)}{_interval(first)})" if len(arms) == 1 else ""
            nouns.append(noun + numbers)
        clauses.append(f"{_list(list(arms))} from {reference} in {_list(nouns, 'or')}")
    text = f"these {units} cannot tell {', nor '.join(clauses)}" if clauses else ""
    return text if any(c.sign for o in outcomes for c in o.comparisons) else _capital(text)


def _words_of(metric: str) -> _Words:
    plain = metric.replace("_", " ")
    return _WORDS.get(metric, _Words("scores", "score", "higher", "lower", f"in {plain}", plain))


def _interval(comparison: Comparison, sign: int = 1) -> str:
    """Write an interval, of the size where the sign is in the words."""
    if comparison.low is None or comparison.high is None:
        return ""
    low, high = sorted((sign * comparison.low, sign * comparison.high))
    return f" [{low:.{comparison.digits}f}, {high:.{comparison.digits}f}]".replace("-", "\u2212")


def _signed(comparison: Comparison) -> str:
    return f"{comparison.mean:+.{comparison.digits}f}".replace("-", "\u2212")


def _list(items: Sequence[str], last: str = "and") -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
