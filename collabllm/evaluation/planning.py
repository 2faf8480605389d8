"""Make the plan of an evaluation from settings, and add to that of one that goes on."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from collabllm.data_processing.splitting import check_split_column
from collabllm.evaluation.analysis import SCORES_FILE
from collabllm.evaluation.arms import Arm, check_not_trained_on
from collabllm.evaluation.measures import BUILT_IN
from collabllm.evaluation.names import check_names
from collabllm.evaluation.plan import (
    ALL_FACTS,
    PLAN_FILE,
    Plan,
    Variant,
    choose_primary,
    open_tasks,
    read_plan,
)
from collabllm.evaluation.results import OPENINGS, RESULTS_FILE, UserInfo
from collabllm.evaluation.scoring import RESCORE_ALL
from collabllm.evaluation.settings import DEFAULT_METRICS, EvaluationSettings
from collabllm.evaluation.uses import count_use, purpose_of
from collabllm.prompts import prompt_hashes
from collabllm.provenance import library_versions, refuse_changes
from collabllm.rewards.metrics.text import signatures
from collabllm.settings import deciding_values
from collabllm.simulation.assistant.registry import server_options
from collabllm.simulation.user_models.registry import UserSpec, to_user_spec
from collabllm.tasks import Task
from collabllm.tasks.contents import content_hashes
from collabllm.tasks.held_out import read_trainings

_DESCRIBE = ("--always", "--dirty", "--exclude=*", "--abbrev=12")
_MAY_GROW = ("arm", "user", "metrics", "num_told", "num_rollouts")
_MAY_CHANGE = ("reference", "primary", "cluster_by", "tasks_are")
N = TypeVar("N", Arm, UserSpec)


@dataclass(frozen=True)
class Prepared:
    """A plan with the objects that carry it out."""

    plan: Plan
    arms: list[Arm]
    users: list[UserSpec]
    tasks: list[Task]
    opened: dict[str, tuple[Task, Variant]]
    goes_on: bool

    def start(self, settings: EvaluationSettings) -> None:
        """Count the use of test tasks, and write the plan; the evaluation begins."""
        plan = self.plan
        trainings = [f"{arm.name}@{seed}" for arm in plan.arms for seed in arm.training_seeds]
        if plan.tasks_are == "test":
            plan.test_set_uses = count_use(
                Path(settings.test_log),
                self.tasks,
                date=plan.date,
                output_dir=settings.output_dir,
                arms=[*(arm.name for arm in plan.arms), *trainings],
                goes_on=self.goes_on,
            )
        folder = Path(settings.output_dir)
        (folder / RESULTS_FILE).unlink(missing_ok=True)  # of a plan that goes on they are not true
        plan.write(folder)


def prepare(settings: EvaluationSettings, check: Callable[[list[str]], None]) -> Prepared:
    """Check everything that can be checked before anything is paid for, and plan.

    Args:
        settings: Settings of the evaluation.
        check: Raises if a metric is unknown or lacks what it needs.

    Raises:
        FileExistsError: If there is an evaluation and `resume` is False.
        FileNotFoundError: If an adapter is not there.
        ValueError: If a setting does not fit, a setting, a task or an adapter differs from that of
            the evaluation that goes on, or an arm was trained on the tasks.
    """
    folder = Path(settings.output_dir)
    exists = (folder / PLAN_FILE).is_file()
    if exists and not settings.resume:
        raise FileExistsError(f"{folder} has an evaluation; use --resume, or another --output_dir.")
    before = read_plan(folder) if exists else None
    settled = deciding_values(settings)
    if before:
        refuse_changes(before.settings, settled, ignored=(*_MAY_GROW, *_MAY_CHANGE))
    was = before.settings if before else {}
    settings = replace(settings, num_tasks=_most_tasks(settings.num_tasks, was))
    arms = _add_named(was.get("arm", []), settings.arms, Arm.read)
    users = _add_named(was.get("user", []), settings.users, to_user_spec)
    users = users or [UserSpec("sharded")]
    if not arms:
        raise ValueError("An evaluation needs an --arm, as in --arm name=base.")
    if settings.assistant_kind == "vllm" or any(arm.model for arm in arms):
        server_options(settings)  # refuses what no server can do
    infos = [arm.to_info(settings.hf_model_path) for arm in arms]
    check_names(
        [info.name for info in infos],
        [user.name for user in users],
        {info.name: info.training_seeds for info in infos},
    )
    told = _add(was.get("num_told", []), settings.num_told) or ["0", ALL_FACTS]
    metrics = _add(before.metrics if before else [], settings.metrics) or list(DEFAULT_METRICS)
    metrics = [metric for metric in metrics if metric not in BUILT_IN]
    check(metrics)
    _check_rescored(settings.rescore, [*metrics, *BUILT_IN])
    tasks = settings.load_tasks()
    contents = content_hashes(tasks, [path for info in infos for path in info.lora_paths])
    refuse_changes(before.contents if before else {}, contents, what="the content of ")
    unchecked = [note for info in infos for note in check_not_trained_on(info, tasks)]
    kept = before.cluster_by if before else None
    cluster_by = settings.cluster_by or kept or _split_column(settings)
    if settings.cluster_by:
        check_split_column((task.to_row() for task in tasks), cluster_by, flag="--cluster_by")
    opened = open_tasks(tasks, [int(n) if n.isdecimal() else n for n in told], cluster_by)
    plan = Plan(
        arms=infos,
        users=[_describe(user) for user in users],
        reference=_choose_reference(settings, before, [arm.name for arm in arms]),
        metrics=metrics,
        primary=choose_primary(
            settings.primary or ([str(o) for o in before.primary] if before else []),
            [*metrics, *BUILT_IN],
            [o for o in OPENINGS if any(variant.opening == o for _, variant in opened)],
        ),
        variants=[variant for _, variant in opened],
        num_rollouts=max(settings.num_rollouts, before.num_rollouts if before else 1),
        cluster_by=cluster_by,
        tasks=settings.tasks,
        tasks_are=before.tasks_are
        if before and settings.tasks_are == "auto"
        else purpose_of(settings.tasks, settings.dataset_split, settings.tasks_are),
        test_set_uses=[],
        seed=settings.seed,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=shlex.join(sys.argv),
        versions=library_versions(),
        commit=_find_commit(),
        prompt_hashes=prompt_hashes(),
        signatures=signatures(),
        settings={
            **settled,
            "arm": [_to_mapping(arm) for arm in arms],
            "user": [_to_mapping(user) for user in users],
            "num_told": told,
            "num_tasks": settings.num_tasks,
            "metrics": metrics,
        },
        notes=_add(before.notes if before else [], unchecked),
        contents=contents,
    )
    if before and _has_scores(folder):
        plan.notes += _changes(plan, before)
    return Prepared(
        plan, arms, users, tasks, {v.task_id: (task, v) for task, v in opened}, before is not None
    )


def _check_rescored(rescore: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in rescore if name not in (*names, RESCORE_ALL)]
    if unknown:
        raise ValueError(
            f"--rescore {', '.join(unknown)}: no metric of this evaluation; it has "
            f"{', '.join(names)} ({RESCORE_ALL} for every one)."
        )


def _most_tasks(number: int | None, was: Mapping[str, Any]) -> int | None:
    """Return how many tasks to take, None for all: never fewer than there are results of."""
    if "num_tasks" not in was:
        return number
    known: int | None = was["num_tasks"]
    return max(number or known, known) if known else None


def _add_named(before: Sequence[Any], given: Sequence[N], read: Callable[[Any], N]) -> list[N]:
    """Return what an evaluation had, and what is new.

    Raises:
        ValueError: If a name stands for something else now.
    """
    found = [read(entry) for entry in before]
    for entry in given:
        same = next((known for known in found if known.name == entry.name), None)
        if same is None or not before:
            found.append(entry)
        elif same != entry:
            flag = "--arm" if isinstance(entry, Arm) else "--user"
            raise ValueError(
                f"--resume: {flag} {entry.name} was {same} and is {entry} now; give the new one "
                "another name."
            )
    return found


def _to_mapping(entry: Arm | UserSpec) -> dict[str, Any]:
    """Return what was said of an arm or a user, as it is read."""
    if isinstance(entry, UserSpec):
        return {"name": entry.name, "kind": entry.kind, **entry.options}
    return {key: value for key, value in vars(entry).items() if value is not None}


def _describe(user: UserSpec) -> UserInfo:
    said = ", ".join(f"{name} {value}" for name, value in user.options.items())
    return UserInfo(user.name, user.kind, said)


def _add(before: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys([*before, *given]))


def _choose_reference(
    settings: EvaluationSettings, before: Plan | None, names: Sequence[str]
) -> str:
    reference = settings.reference or (before.reference if before else names[0])
    if reference not in names:
        raise ValueError(f"--reference {reference} is not an arm; arms: {', '.join(names)}.")
    return reference


def _split_column(settings: EvaluationSettings) -> str:
    """Return the column that training split by: tasks that share its value are alike."""
    if settings.held_out_of:
        *_, first = read_trainings(settings.held_out_of)
        return str(first["split_by"])
    return settings.split_by


def _has_scores(folder: Path) -> bool:
    file = folder / SCORES_FILE
    return file.is_file() and file.stat().st_size > 0


def _changes(plan: Plan, before: Plan) -> Iterator[str]:
    """Say what was changed after there were results: the choice could follow them."""
    former, present = _deciding(before), _deciding(plan)
    for what in [name for name in former if name in present]:
        verb = what.rpartition(" ")[2]
        if former[what] != present[what]:
            yield (
                f"The {what} {former[what]} and {verb} changed to {present[what]} after there were "
                f"results ({plan.date})."
            )


def _deciding(plan: Plan) -> dict[str, str]:
    """Return what the primary outcomes and their values follow from, in words."""
    return {
        "primary outcomes were": ", ".join(map(str, plan.primary)),
        "clusters were": plan.cluster_by,
        "reference was": plan.reference,
        "users were": ", ".join(user.name for user in plan.users),
        "number of tasks was": str(len({variant.task for variant in plan.variants})),
        "number of rollouts was": str(plan.num_rollouts),
        "kind of the tasks was": plan.tasks_are,
        **{
            f"trainings of {arm.name} were": ", ".join(arm.training_seeds or arm.lora_paths)
            for arm in plan.arms
        },
        **{f"prompt {name} was": text for name, text in plan.prompt_hashes.items()},
        **{f"metric {name} was": text for name, text in plan.signatures.items()},
        **({"commit was": plan.commit} if plan.commit else {}),
        **{f"version of {name} was": number for name, number in plan.versions.items()},
    }


def _find_commit() -> str:
    """Return the commit of this program's source; empty where it is not in a repository.

    Installed from a wheel, it may lie within the repository of another program.
    """
    here = Path(__file__)
    for command in (["ls-files", "--error-unmatch", here.name], ["describe", *_DESCRIBE]):
        try:
            found = subprocess.run(
                ["git", *command],
                cwd=here.parent,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        if found.returncode:
            return ""
    return found.stdout.strip()
