"""What scripts/study.py does: plan, host or export a study."""

from dataclasses import asdict, fields
from pathlib import Path

from collabllm.evaluation.arms import check_not_trained_on
from collabllm.evaluation.people import open_desk
from collabllm.evaluation.study.app import build_app
from collabllm.evaluation.study.design import Design
from collabllm.evaluation.study.host import Host
from collabllm.evaluation.study.sample_size import level_of_one, people_needed
from collabllm.evaluation.study.settings import StudySettings
from collabllm.evaluation.study.store import Study, StudyTask, export
from collabllm.files import write_text
from collabllm.servers.kept_usage import keep_usage
from collabllm.settings import deciding_values
from collabllm.tasks import Task
from collabllm.tasks.contents import content_hashes
from collabllm.web import Guard, address_of, find_port, serve


def run_study(settings: StudySettings) -> None:
    """Plan a study, export its answers, or host it until Ctrl-C.

    Raises:
        FileExistsError: If the export's file exists.
        FileNotFoundError: If an adapter, or the study to export, is not there.
        KeyboardInterrupt: After Ctrl-C; the text says how to go on.
        OSError: If the port is taken.
        ValueError: If a setting does not fit, or the folder has another study.
    """
    folder = Path(settings.output_dir)
    if settings.plan is not None:
        print(describe_plan(settings))
    elif settings.export:
        number = export(folder, Path(settings.export))
        print(f"Answers of {number} people, without identities: {settings.export}")
    else:
        _host(settings, folder)


def describe_plan(settings: StudySettings) -> str:
    """Say how many people a wanted difference takes."""
    wanted, number = settings.plan or 0.0, len(settings.arms)
    needed = people_needed(wanted, settings.spread, num_arms=number, tasks_each=settings.tasks_each)
    return (
        f"{needed} people show a true difference of {wanted:g} grades between an arm and the first "
        f"one with 80% power (the report's test at {100 * level_of_one(number):.3g}%, as it "
        f"corrects two grades of {number - 1} arm(s)), if one person's difference has a standard "
        f"deviation of {settings.spread:g} (--spread). People who stop early come on top."
    )


def build_study(settings: StudySettings) -> Study:
    """Read the tasks, and say what the study is.

    Raises:
        FileNotFoundError: If an adapter is not there.
        ValueError: If there are fewer tasks than one person does, or an arm was trained on them.
    """
    arms = settings.arms
    tasks = settings.load_tasks()
    infos = {arm.name: arm.to_info(settings.hf_model_path) for arm in arms}
    for info in infos.values():
        check_not_trained_on(info, tasks)
    own = {"arm", *(field.name for field in fields(Study))}
    tasks_each = settings.tasks_each or min(len(arms), len(tasks))
    study = Study(
        arms=[arm.name for arm in arms],
        tasks=[StudyTask(task.task_id, _text_of(task)) for task in tasks],
        participants=settings.participants,
        tasks_each=tasks_each,
        min_turns=settings.min_turns,
        rate_every=settings.rate_every,
        pad_s=settings.pad_s,
        seed=settings.seed,
        contact=settings.contact,
        settings={
            **{name: value for name, value in deciding_values(settings).items() if name not in own},
            "arms": {name: asdict(info) for name, info in infos.items()},
            "tasks": settings.tasks,
            "contents": content_hashes([], [p for i in infos.values() for p in i.lora_paths]),
        },
    )
    Design(study.arms, [task.task_id for task in study.tasks], tasks_each, study.seed)
    return study


def _text_of(task: Task) -> str:
    """Return a task as a person reads it: the goal, and what they are to know."""
    untold = [f.answer for f in task.facts if f.answer not in task.single_turn_prompt]
    lines = [task.single_turn_prompt, *untold]
    return "\n".join(lines)


def _host(settings: StudySettings, folder: Path) -> None:
    study = build_study(settings)
    prompts = {arm.name: arm.prompt(settings.system_prompt) for arm in settings.arms}
    with (
        open_desk(settings) as desk,
        find_port(settings.host, settings.port) as listener,
        Host(folder, study, desk, prompts) as host,
        keep_usage(folder, desk.ledger),
    ):
        base = (settings.public_url or address_of(listener, "")).rstrip("/")
        links = [f"{base}/p/{code}" for code in host.codes]
        write_text(folder / "links.txt", "\n".join(links) + "\n")
        (folder / "links.txt").chmod(0o600)
        print(f"One link per person: {folder / 'links.txt'}; the first is {links[0]}", flush=True)
        try:
            serve(Guard(build_app(host), settings.host, settings.host_names), listener)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "The study rests; the same command goes on with it, and the same links work. "
                f"Results: uv run python scripts/evaluate.py --study {folder}"
            ) from None
