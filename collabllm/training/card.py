"""What a run leaves behind: metrics, a configuration that reruns it, a model card, a Hub copy."""

import argparse
import json
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from collabllm import __version__
from collabllm.hub import HubTarget

logger = logging.getLogger(__name__)

CONFIG_FILE = "train_config.yaml"
METRICS_FILE = "metrics.json"
NOT_UPLOADED = ("checkpoint-*", "checkpoint-*/**", "wandb/**", "runs/**")
_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")
COMPARED = ("loss", "token_accuracy", "ranking_accuracy", "reward_accuracy", "margin")
_MADE_BY = {
    "sft": "on the best-scored replies of",
    "dpo": "by preference (DPO) on the best against the worst replies of",
}
_NOT_RERUN = ("config", "trainer_args", "parse_secrets_runpod")


def library_versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    return {
        "collabllm": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def write_train_config(
    folder: Path, args: argparse.Namespace, trainer_fields: Mapping[str, Any], method: str = "sft"
) -> None:
    """Write the flags of a run, so that `--config train_config.yaml` runs it again.

    Args:
        folder: The run's output folder.
        args: Our own flags, resolved.
        trainer_fields: The trainer's fields that the user set; where to write is left out.
        method: Whose script runs it.
    """
    own = {name: value for name, value in vars(args).items() if name not in _NOT_RERUN}
    fields = {
        name: value
        for name, value in trainer_fields.items()
        if name not in ("output_dir", "run_name", "resume_from_checkpoint", "hub_token")
    }
    text = f"# scripts/train_{method}.py --config {CONFIG_FILE}\n"
    text += yaml.safe_dump({**own, **fields}, sort_keys=False, allow_unicode=True)
    _write(folder / CONFIG_FILE, text)


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write the metrics of a run as JSON."""
    _write(folder / METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def write_card(
    folder: Path,
    args: argparse.Namespace,
    facts: Mapping[str, Any],
    before: Mapping[str, float],
    after: Mapping[str, float],
    hub: HubTarget | None,
) -> None:
    """Write the model card (README.md) of an adapter."""
    rows = [
        f"| {name} | {before[name]:.4f} | {after[name]:.4f} |"
        for name in COMPARED
        if name in before and name in after
    ]
    evaluation = "\n".join(["| held-out metric | before | after |", "|---|---|---|", *rows])
    settings = "\n".join(f"- {name}: `{value}`" for name, value in facts["settings"].items())
    data = "\n".join(f"- {name}: {value}" for name, value in facts["data"].items())
    versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
    where = hub.repo_id if hub else "PATH/TO/THIS/FOLDER"
    base = "{collabllm.models.resolve_model_path(...)}" if facts["bundled"] else args.hf_model_path
    load_base = (
        'from collabllm.models import load_base_model\n\nbase = load_base_model("'
        f'{args.hf_model_path}")'
        if facts["bundled"]
        else "from transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")'
    )
    header = {
        "library_name": "peft",
        "base_model": args.hf_model_path,
        "tags": ["collabllm", "lora", facts["method"], "multi-turn"],
        "pipeline_tag": "text-generation",
    }
    text = f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {facts["run_name"]}

A LoRA adapter of `{args.hf_model_path}` that collaborates over several turns: it asks for what is
missing and uses what was said. Trained with CollabLLM {_MADE_BY[facts["method"]]}
`{args.hf_dataset_path}`.

## Data
{data}

## Hyperparameters
{settings}

## Evaluation on held-out tasks
{evaluation if rows else "No tasks were held out (eval_ratio 0)."}

## How to load it
```python
from peft import PeftModel
{load_base}
model = PeftModel.from_pretrained(base, "{where}")
```

Versions: {versions}. `{CONFIG_FILE}` runs the same training again.
"""
    _write(folder / "README.md", text)


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that no half-written one is left."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
