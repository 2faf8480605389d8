"""What scripts/ablate.py does: train every way with every seed, then evaluate all of them."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from collabllm.ablation.settings import START, AblationSettings
from collabllm.evaluation.results import Results
from collabllm.evaluation.run import evaluate
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.files import write_text
from collabllm.settings import load_config, parse_settings, to_settings
from collabllm.training.command_line import parse_training_flags
from collabllm.training.dpo import train_dpo
from collabllm.training.grpo import train_grpo
from collabllm.training.grpo_settings import GRPOSettings
from collabllm.training.settings import DPOSettings, SFTSettings
from collabllm.training.sft import train_sft

logger = logging.getLogger(__name__)

_METHODS: dict[str, tuple[type, Callable[..., Path]]] = {
    "sft": (SFTSettings, train_sft),
    "dpo": (DPOSettings, train_dpo),
    "grpo": (GRPOSettings, train_grpo),
}


@dataclass
class Training:
    """One training of the ablation, checked and not begun."""

    arm: str
    seed: int
    folder: Path
    train: Callable[[], Path]


def ablate(settings: AblationSettings | None = None, **arguments: Any) -> list[Results]:
    """Train every arm with every seed, and compare the arms on the same tasks.

    What is finished is left as it is, so the same call goes on after an interruption.

    Args:
        settings: All of them; the defaults where None.
        arguments: Single settings by name; they win.

    Returns:
        What each evaluation has found; `results.json` in its folder holds it, too.

    Raises:
        FileNotFoundError: If a config file is not there.
        SystemExit: If a config file does not fit its script, before anything is trained.
        ValueError: If a setting does not fit.
    """
    settings = to_settings(AblationSettings, settings, arguments)
    trainings, evaluations = plan(settings)
    for number, training in enumerate(trainings, start=1):
        logger.info(
            "Training %d of %d: %s, seed %d", number, len(trainings), training.arm, training.seed
        )
        training.train()
    Console().print(_describe(trainings))
    return [evaluate(evaluation) for evaluation in evaluations]


def plan(settings: AblationSettings) -> tuple[list[Training], list[EvaluationSettings]]:
    """Check all trainings and evaluations, and write their configs; trains nothing.

    Raises:
        SystemExit: If a config file does not fit its script.
        ValueError: If a folder has a training of other settings.
    """
    trainings = _plan_trainings(settings)
    return trainings, _plan_evaluations(settings, trainings)


def _plan_trainings(settings: AblationSettings) -> list[Training]:
    """Check every training; one seed of all arms comes before the next seed."""
    base = load_config(settings.train)
    trainings = []
    for seed in settings.seeds:
        common = dict(settings.flags)
        if settings.start:
            start = _plan_training(settings, "sft", START, seed, load_config(settings.start))
            trainings.append(start)
            common["lora_path"] = str(start.folder)
        for arm, flags in settings.arms.items():
            config = {**base, **common, **flags}
            trainings.append(_plan_training(settings, settings.method, arm, seed, config))
    return trainings


def _plan_training(
    settings: AblationSettings, method: str, arm: str, seed: int, config: Mapping[str, Any]
) -> Training:
    """Write the config of one training, which its script can read, too, and check it."""
    folder = Path(settings.output_dir) / f"{arm}-seed{seed}"
    own = {"seed": seed, "output_dir": str(folder), "resume_from_checkpoint": "auto"}
    own |= _model(settings)
    _refuse_other(folder, _file(settings, folder.name), {**config, **own})
    file = _write(settings, folder.name, {**config, **own})
    settings_class, train = _METHODS[method]
    found: Any
    found, fields = parse_training_flags(settings_class, method, "", ["--config", str(file)])
    return Training(arm, seed, folder, lambda: train(found, **fields))


def _plan_evaluations(
    settings: AblationSettings, trainings: list[Training]
) -> list[EvaluationSettings]:
    folders: dict[str, list[str]] = {name: [] for name in settings.arms}
    for training in trainings:
        folders.setdefault(training.arm, []).append(str(training.folder))
    arms = [{"name": name, "lora_path": paths} for name, paths in folders.items()]
    planned = []
    for name in settings.evaluations:
        folder = Path(settings.output_dir) / Path(name).stem
        own = {
            "arm": arms,
            "reference": settings.reference or next(iter(settings.arms)),
            "output_dir": str(folder),
            "resume": True,
            **_model(settings),
        }
        file = _write(settings, folder.name, {**load_config(name), **own})
        planned.append(parse_settings(EvaluationSettings, ["--config", str(file)]))
    return planned


def _model(settings: AblationSettings) -> dict[str, Any]:
    return {"hf_model_path": settings.hf_model_path} if settings.hf_model_path else {}


def _refuse_other(folder: Path, file: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError if the folder has a training of other settings."""
    before = load_config(file) if file.is_file() and folder.exists() else config
    changed = [n for n in {**before, **config} if before.get(n) != config.get(n)]
    if changed:
        raise ValueError(
            f"{folder} was trained with other settings ({', '.join(changed)}). Take another "
            "--output_dir, or delete that folder to train it anew."
        )


def _file(settings: AblationSettings, name: str) -> Path:
    return Path(settings.output_dir) / "configs" / f"{name}.yaml"


def _write(settings: AblationSettings, name: str, config: Mapping[str, Any]) -> Path:
    file = _file(settings, name)
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
        minutes = metrics["train"].get("train_runtime", 0) / 60
        written = f"{tokens[-1]:,.0f}" if tokens else "-"
        table.add_row(training.arm, str(training.seed), str(steps), written, f"{minutes:.1f}")
    return table
