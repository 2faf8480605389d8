"""What scripts/ablate.py does: train every way with every seed, then evaluate all of them."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from collabllm.ablation.checks import check_data, check_evaluation
from collabllm.ablation.settings import START, AblationSettings
from collabllm.cli import larger_run
from collabllm.evaluation.arms import refuse_trained
from collabllm.evaluation.results import Results
from collabllm.evaluation.run import evaluate
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.files import write_text
from collabllm.settings import load_config, parse_settings, to_settings
from collabllm.tasks.contents import hash_files
from collabllm.tasks.held_out import read_trainings
from collabllm.training.adapters import check_model
from collabllm.training.checkpoints import own_folder
from collabllm.training.command_line import parse_training_flags
from collabllm.training.dpo import DPO
from collabllm.training.grpo import GRPO
from collabllm.training.method import Method
from collabllm.training.run import run_training
from collabllm.training.sft import SFT
from collabllm.training.start import check_flags
from collabllm.training.trainer_config import SECRET_FIELDS

logger = logging.getLogger(__name__)

_METHODS: dict[str, type[Method]] = {"sft": SFT, "dpo": DPO, "grpo": GRPO}


@dataclass
class Training:
    """One training of the ablation, checked and not begun."""

    arm: str
    seed: int
    folder: Path
    method: type[Method]
    settings: Any
    fields: dict[str, Any]
    trusts_remote_code: bool

    def train(self) -> Path:
        """Train, or go on, or do nothing where it is complete."""
        return run_training(self.method(), self.settings, self.fields)


def ablate(settings: AblationSettings | None = None, **arguments: Any) -> list[Results]:
    """Train every arm with every seed, and compare the arms on the same tasks.

    The name of a folder has a hash of all settings behind what is in it, and of the local files
    of rows, tasks and adapters that they name, so the same call goes on after an interruption, and
    what was changed is trained and evaluated anew.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name; they win.

    Returns:
        What each evaluation has found; `results.json` in its folder holds it, too.

    Raises:
        FileExistsError: If another run is writing the folder.
        FileNotFoundError: If a config file, data or an adapter is not there.
        SystemExit: If a config file does not fit its script, before anything is trained.
        ValueError: If a setting does not fit; before anything is trained.
    """
    settings = to_settings(AblationSettings, settings, arguments)
    with own_folder(Path(settings.output_dir)), larger_run():
        trainings, evaluations = plan(settings)
        for number, training in enumerate(trainings, start=1):
            logger.info("Training %d of %d: %s", number, len(trainings), training.folder.name)
            training.train()
        Console().print(_describe(trainings))
        return [evaluate(evaluation) for evaluation in evaluations]


def plan(settings: AblationSettings) -> tuple[list[Training], list[EvaluationSettings]]:
    """Check all trainings and evaluations, and write their configs; trains nothing.

    Raises:
        FileNotFoundError: If data or an adapter is not there.
        SystemExit: If a config file does not fit its script.
        ValueError: If flags, data, metrics or outcomes do not fit, models differ, or tasks of an
            evaluation are trained on.
    """
    trainings = _plan_trainings(settings)
    evaluations = _plan_evaluations(settings, trainings)
    models = {run.settings.hf_model_path for run in trainings}
    models |= {evaluation.hf_model_path for evaluation in evaluations}
    if len(models) > 1:
        raise ValueError(
            f"The files name several models ({', '.join(sorted(models))}); give one for all of "
            "them: --hf_model_path MODEL."
        )
    folders = {str(training.folder) for training in trainings}
    arms = {training.arm: training for training in trainings}.values()  # seeds share the data
    for run in arms:
        if run.settings.lora_path not in folders:  # else that training comes first
            check_model(run.settings, run.trusts_remote_code)
        check_data(run.settings)
    for evaluation in evaluations:
        tasks = check_evaluation(evaluation, Path(settings.output_dir) / "configs")
        for run in [] if evaluation.held_out_of else arms:
            configs = [asdict(run.settings)]
            if run.settings.lora_path and run.settings.lora_path not in folders:
                configs += read_trainings(run.settings.lora_path)
            for config in configs:
                refuse_trained(run.arm, str(run.folder), tasks, config)
    return trainings, evaluations


def _plan_trainings(settings: AblationSettings) -> list[Training]:
    """Check every training; one seed of all arms comes before the next seed."""
    base = load_config(settings.train)
    start_config = load_config(settings.start) if settings.start else {}
    trainings = []
    for seed in settings.seeds:
        common = dict(settings.flags)
        if settings.start:
            start = _plan_training(settings, SFT, START, seed, start_config)
            trainings.append(start)
            common["lora_path"] = str(start.folder)
        for arm, flags in settings.arms.items():
            config = {**base, **common, **flags}
            trainings.append(_plan_training(settings, _METHODS[settings.method], arm, seed, config))
    return trainings


def _plan_training(
    settings: AblationSettings,
    method: type[Method],
    arm: str,
    seed: int,
    config: Mapping[str, Any],
) -> Training:
    """Write the config of one training, which its script can read, too, and check it."""
    secrets = [name for name in SECRET_FIELDS if config.get(name)]
    if secrets:
        raise ValueError(f"{arm}: take {secrets[0]} out of the file; set HF_TOKEN instead.")
    config = {**config, **_model(settings), "seed": seed}
    start = config.get("lora_path") or ""
    places = ["hf_dataset_path", "tasks", "lora_path"]
    if Path(start).parent == Path(settings.output_dir):
        start = Path(start).name  # has the hash of the start's settings
        places.remove("lora_path")
    contents = _contents(config, places)
    name = f"{arm}-seed{seed}-{_hash(_without_places(config), method.name, start, *contents)}"
    folder = Path(settings.output_dir) / name
    own = {"output_name_tag": name, "output_dir": str(folder), "resume_from_checkpoint": "auto"}
    file = _write(settings, name, {**config, **own})
    found, fields = parse_training_flags(
        method.settings_class, method.name, "", ["--config", str(file)]
    )
    trainer_config, _ = check_flags(method(), found, fields)
    trusts = bool(trainer_config.trust_remote_code)
    return Training(arm, seed, folder, method, found, fields, trusts)


def _plan_evaluations(
    settings: AblationSettings, trainings: list[Training]
) -> list[EvaluationSettings]:
    folders: dict[str, list[str]] = {name: [] for name in settings.arms}
    for training in trainings:
        folders.setdefault(training.arm, []).append(str(training.folder))
    arms = [{"name": name, "lora_path": paths} for name, paths in folders.items()]
    planned = []
    for file in settings.evaluations:
        config = {**load_config(file), **_model(settings)}
        runs = [training.folder.name for training in trainings]
        contents = _contents(config, ["tasks"])
        name = f"{Path(file).stem}-{_hash(_without_places(config), *runs, *contents)}"
        own = {
            "arm": arms,
            "reference": settings.reference or next(iter(settings.arms)),
            "output_dir": str(Path(settings.output_dir) / name),
            "resume": True,
        }
        written = _write(settings, name, {**config, **own})
        planned.append(parse_settings(EvaluationSettings, ["--config", str(written)]))
    return planned


def _model(settings: AblationSettings) -> dict[str, Any]:
    return {"hf_model_path": settings.hf_model_path} if settings.hf_model_path else {}


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where things lie and what the ablation decides itself."""
    ours = ("arm", "reference", "output_dir", "output_name_tag", "resume_from_checkpoint", "resume")
    return {name: value for name, value in config.items() if name not in (*ours, "lora_path")}


def _contents(config: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the hashes of the local files that a config names; of the Hub and the demo none."""
    given = [config.get(name) or [] for name in names]
    paths = [path for some in given for path in (some if isinstance(some, list) else [some])]
    hashes = [hash_files(path, config.get("dataset_split") or "train") for path in paths]
    return list(filter(None, hashes))


def _hash(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _write(settings: AblationSettings, name: str, config: Mapping[str, Any]) -> Path:
    file = Path(settings.output_dir) / "configs" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    return file


def _describe(trainings: list[Training]) -> Table:
    """Return what each training took; arms are comparable where they took the same."""
    table = Table(title="Trainings")
    for column in ("arm", "seed", "steps", "generated tokens", "minutes"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for training in trainings:
        metrics = json.loads((training.folder / "metrics.json").read_text(encoding="utf-8"))
        log = metrics["log_history"]
        steps = max((entry.get("step", 0) for entry in log), default=0)
        tokens = [entry["generated_tokens"] for entry in log if "generated_tokens" in entry]
        seconds = None if metrics.get("resumed_from") else metrics["train"].get("train_runtime")
        minutes = "-" if seconds is None else f"{seconds / 60:.1f}"  # of all its parts, or unknown
        written = f"{tokens[-1]:,.0f}" if tokens else "-"
        table.add_row(training.arm, str(training.seed), str(steps), written, minutes)
    return table
