"""Settings of `ablate`: what is trained, in which ways, with which seeds, and what measures it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from collabllm.settings import Settings, parse_json, setting

START = "start"
"""Name of the arm that all others go on from, where it is trained here."""

_NOT_FLAGS = {
    "seed": "the ablation has seeds for all arms",
    "output_dir": "each training has its folder in the ablation's",
    "resume_from_checkpoint": "a training that was stopped goes on",
    "output_name_tag": "each training is called as its folder",
    "hf_model_path": "all arms have one model, the ablation's hf_model_path or that of the files",
    "hub_token": "set HF_TOKEN instead, so that no file has it",
}


@dataclass(kw_only=True)
class AblationSettings(Settings):
    """All that `ablate` does."""

    _argument_group_name = "the ablation"

    train: str = setting("configs/demo_grpo.yaml", "config file of the training", metavar="FILE")
    method: Literal["sft", "dpo", "grpo"] = setting(
        "grpo", "whose config that is: the one of scripts/train_METHOD.py"
    )
    arms: dict[str, Any] = setting(
        {}, 'the ways: names, each with its flags: {"near": {"window": 0}, "far": {"window": 2}}'
    )
    flags: dict[str, Any] = setting(
        {}, 'flags of all these trainings, in place of those of the file: {"max_steps": 20}'
    )
    start: str | None = setting(
        None,
        "config file of an SFT that each seed goes on from; it is an arm, too, called start",
        metavar="FILE",
    )
    hf_model_path: str | None = setting(
        None,
        "model of all trainings and evaluations, in place of that of the files",
        metavar="MODEL",
    )
    seeds: list[int] = setting([0, 1, 2], "training seeds", metavar="SEED", least=0)
    evaluations: list[str] = setting(
        ["configs/effect_demo.yaml"],
        "config files of scripts/evaluate.py, whose arms are those of the ablation",
        metavar="FILE",
    )
    reference: str | None = setting(
        None, "arm that the others are compared with; default: the first", metavar="NAME"
    )
    output_dir: str = setting(
        "outputs/ablation", "folder of adapters, evaluations and reports", metavar="DIR"
    )

    def __post_init__(self) -> None:
        """Read the arms, from the command line or from YAML alike.

        Raises:
            ValueError: If an arm's name or flags do not fit, a seed comes twice, or one is missing.
        """
        super().__post_init__()
        self.output_dir = str(Path(self.output_dir).expanduser())
        self.flags = _to_flags("flags", parse_json(self.flags, "--flags"))
        arms = parse_json(self.arms, "--arms")
        if len(arms) < 2:
            raise ValueError("arms must name at least two ways of training.")
        for name in arms:
            if not re.fullmatch(r"[\w.-]+", str(name)) or name == START or isinstance(name, bool):
                raise ValueError(
                    f"arms: a name may have letters, digits, '_', '-' and '.', and {START!r} is "
                    f"taken; got {name!r} (YAML reads on, off, yes and no as true and false)."
                )
        self.arms = {str(name): _to_flags(f"arms: {name}", arms[name]) for name in arms}
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one; got {self.seeds}.")
        stems = [Path(file).stem for file in self.evaluations]
        if len(set(stems)) < len(stems):
            raise ValueError(f"evaluations must have different file names, got {stems}.")
        names = [*self.arms, START] if self.start else list(self.arms)
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"reference must be one of {', '.join(names)}, got {self.reference}.")


def _to_flags(owner: str, given: Any) -> dict[str, Any]:
    """Read flags of trainings, spelled with dashes or underscores; none where nothing is said."""
    if not isinstance(given, dict | None):
        raise ValueError(f"{owner} must map flags to values, got {given!r}.")
    flags = {str(name).replace("-", "_"): value for name, value in (given or {}).items()}
    taken = [name for name in flags if name in _NOT_FLAGS]
    if taken:
        raise ValueError(f"{owner} must not have {taken[0]}: {_NOT_FLAGS[taken[0]]}.")
    return flags
