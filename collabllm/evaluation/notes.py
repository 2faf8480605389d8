"""Sentences that a reader of results must not miss."""

from collections.abc import Iterator, Sequence

from collabllm.evaluation.measures import PAYS_SILENCE
from collabllm.evaluation.report.conversations import plural
from collabllm.evaluation.results import (
    NOT_APPLICABLE,
    NOT_RUN,
    PEOPLE_UNIT,
    Cell,
    Progress,
    Results,
)
from collabllm.evaluation.statistics import MIN_UNITS
from collabllm.rewards.registry import LOUD_MISSING_SHARE
from collabllm.simulation.endings import TerminationReason


def write_notes(results: Results) -> list[str]:
    """Say what is incomplete or unsure, the gravest first."""
    return [
        *_incomplete(results),
        *_missing(results),
        *_without_value(results),
        *_uneven(results),
        *_tampered(results),
        *_silent(results),
        *_few_clusters(results),
        *_ranks(results),
        *_seeds(results),
        *_test_set(results),
    ]


def _incomplete(results: Results) -> Iterator[str]:
    planned = sum(p.planned for p in results.progress)
    done = sum(p.done for p in results.progress)
    if done < planned:
        where = _shown([p for p in results.progress if p.done < p.planned])
        if results.cluster_by == PEOPLE_UNIT:
            yield (
                f"This study is incomplete: {planned - done} of {planned} grades of an arm by a "
                f"person are missing ({where}). Differences are those of the people who graded "
                "both arms; who has not finished can go on by the same link."
            )
        else:
            yield (
                f"This evaluation is incomplete: {planned - done} of {planned} conversations are "
                f"missing ({where}). Means and differences are those of the tasks that an arm "
                "shares with the one it is compared with; --resume does the rest."
            )
    turned = [d for d in results.primary_differences() if d.missing_could_change_it]
    for d in turned:
        if d.worst_low != d.worst_high and d.verdict != "cannot tell":
            yield (
                f"The missing values could turn the sign of {d.arm} against {d.reference} in "
                f"{d.metric}: between {d.worst_low:+.2f} and {d.worst_high:+.2f}."
            )


def _shown(where: Sequence[Progress]) -> str:
    shown = ", ".join(
        f"{p.arm} with user {p.user} has {p.done} of {p.planned}"
        + (f" ({p.failed} failed)" if p.failed else "")
        for p in where[:6]
    )
    return f"{shown}, and {len(where) - 6} more" if len(where) > 6 else shown


def _missing(results: Results) -> Iterator[str]:
    """Name metrics that failed in conversations that were held."""
    for cell in results.cells:
        failed = _num_failed(cell)
        if cell.user != results.headline_user or not failed:
            continue
        if failed > LOUD_MISSING_SHARE * (failed + cell.num_values):
            reasons = ", ".join(
                f"{n}x {reason}"
                for reason, n in cell.missing_reasons.items()
                if reason not in (NOT_APPLICABLE, NOT_RUN)
            )
            yield (
                f"{cell.metric} of arm {cell.arm} is missing in {failed} of "
                f"{failed + cell.num_values} conversations ({reasons})."
            )


def _without_value(results: Results) -> Iterator[str]:
    """Name the primary outcomes that say nothing of an arm: tables and sentence leave them out."""
    told = {(d.metric, d.opening, d.arm) for d in results.primary_differences()}
    others = [arm.name for arm in results.arms if arm.name != results.reference]
    for outcome in results.primary:
        arms = [arm for arm in others if (outcome.metric, outcome.opening, arm) not in told]
        if arms:
            yield (
                f"The primary outcome {outcome} has no value in any task for both "
                f"{results.reference} and {', '.join(arms)}: nothing is said of it."
            )


def _uneven(results: Results) -> Iterator[str]:
    """Name metrics that apply to more conversations of one arm than of another."""
    for metric in results.metrics:
        for opening in results.openings if not metric.descriptive else ():
            cells = [
                cell
                for cell in results.cells
                if (cell.user, cell.opening, cell.metric)
                == (results.headline_user, opening, metric.name)
            ]
            numbers = [cell.missing_reasons.get(NOT_APPLICABLE, 0) for cell in cells]
            if len(set(numbers)) > 1:
                shown = ", ".join(f"{n} of {c.arm}" for c, n in zip(cells, numbers, strict=True))
                yield (
                    f"{metric.name} ({opening} told) does not apply to a number of conversations "
                    f"that differs between arms ({shown}): it says nothing of these."
                )


def _tampered(results: Results) -> Iterator[str]:
    """Name metrics that replies attacked; a cheat that is not caught counts as right."""
    for cell in results.cells:
        if cell.user == results.headline_user and cell.num_tampered:
            yield (
                f"{cell.metric} of arm {cell.arm} is 0 in {cell.num_tampered} of {cell.num_values} "
                f"conversations (opening: {cell.opening}) because a reply tampered with the metric."
            )


def _silent(results: Results) -> Iterator[str]:
    """Name arms that fell silent: a metric of questions or repetition takes that for the best."""
    metrics = ", ".join(metric.name for metric in results.metrics if metric.name in PAYS_SILENCE)
    for arm in results.arms:
        counts = [found.counts for found in results.endings if found.arm == arm.name]
        silent = sum(c.get(TerminationReason.ASSISTANT_EMPTY, 0) for c in counts)
        if silent:
            yield (
                f"Arm {arm.name} ended {silent} of {sum(sum(c.values()) for c in counts)} "
                f"conversations by saying nothing: who is silent asks and repeats nothing, so "
                f"these look good in {metrics}."
            )


def _num_failed(cell: Cell) -> int:
    return cell.num_missing - sum(cell.missing_reasons.get(n, 0) for n in (NOT_APPLICABLE, NOT_RUN))


def _few_clusters(results: Results) -> Iterator[str]:
    number = results.num_clusters
    too_few = (
        f"too few for an interval, and no test can reach p < 0.05 below {MIN_UNITS}. The values "
        "are shown."
    )
    if number < MIN_UNITS:
        alone = number == results.num_tasks
        what = plural(number, "task") if alone else f"{plural(number, 'cluster')} of tasks"
        verb = "is" if number == 1 else "are"
        yield f"There {verb} only {what} (by {results.cluster_by}): {too_few}"
        return
    for outcome in results.primary:
        numbers = [
            d.num_clusters
            for d in results.primary_differences()
            if (d.metric, d.opening) == (outcome.metric, outcome.opening)
        ]
        if numbers and max(numbers) < MIN_UNITS:
            what = plural(max(numbers), "independent cluster")
            yield f"{outcome.metric} ({outcome.opening} told) has only {what} of tasks: {too_few}"


def _ranks(results: Results) -> Iterator[str]:
    for ranking in results.rankings:
        if ranking.changes:
            orders = "; ".join(
                f"{user}: {' > '.join(order)}"
                for user, order in ranking.by_user.items()
                if user != results.headline_user
            )
            yield (
                f"The order of the arms in {ranking.metric} ({ranking.opening} told) differs "
                f"between users, perhaps by chance: {orders}."
            )


def _seeds(results: Results) -> Iterator[str]:
    numbers = {arm.name: len(arm.training_seeds) for arm in results.arms}
    single = [arm.name for arm in results.arms if len(arm.lora_paths) == 1]
    if single:
        verb = "is one training" if len(single) == 1 else "are one training each"
        yield (
            f"{', '.join(single)} {verb}: intervals hold for these weights, not for the recipe. "
            "Train more seeds and give them as one arm: lora_path=outputs/run-*."
        )
    several = {number for number in numbers.values() if number > 1}
    if len(several) > 1:
        yield (
            "Arms have different numbers of trainings; of two that have several, the first ones "
            "are compared, as many as the one with fewer has."
        )
    if 2 in several:
        yield "Two trainings say little about the spread between trainings; use three or more."


def _test_set(results: Results) -> Iterator[str]:
    uses = len(results.test_set_uses)
    if results.tasks_are == "test" and uses > 1:
        yield (
            f"These test tasks were opened {uses} times (first on {results.test_set_uses[0].date}"
            "): what was chosen after the first time is no longer tested on unseen tasks."
        )
