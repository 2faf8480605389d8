"""What a run leaves behind: metrics, a configuration that reruns it, a model card, a Hub copy."""

import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from collabllm import __version__
from collabllm.data_processing.tokenization import render_chat
from collabllm.files import write_text
from collabllm.hub import HubTarget
from collabllm.messages import Message, fold_system, with_system_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CONFIG_FILE = "train_config.yaml"
METRICS_FILE = "metrics.json"
UPLOADED = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
    "train_config.yaml",
    "metrics.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "merges.txt",
    "vocab.json",
)
_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")
_NOT_RERUN = ("parse_secrets_runpod", "overwrite_output_dir")


def library_versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    return {
        "collabllm": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def write_train_config(
    folder: Path, settings: Any, trainer_fields: Mapping[str, Any], method: str
) -> None:
    """Write the flags of a run, so that `--config train_config.yaml` runs it again.

    Args:
        folder: The run's output folder.
        settings: Our own settings, resolved.
        trainer_fields: The trainer's fields that the user set.
        method: Whose script runs it.
    """
    own = {name: value for name, value in asdict(settings).items() if name not in _NOT_RERUN}
    text = f"# scripts/train_{method}.py --config {CONFIG_FILE}\n"
    text += yaml.safe_dump({**own, **trainer_fields}, sort_keys=False, allow_unicode=True)
    write_text(folder / CONFIG_FILE, text)


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write the metrics of a run as JSON."""
    write_text(folder / METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def build_example(system_prompt: str | None, tokenizer: "PreTrainedTokenizerBase") -> list[Message]:
    """Return a conversation for the card's code, in the form that the plain chat template takes."""
    user = Message(role="user", content="Help me plan a party.")
    chat = with_system_prompt([user], system_prompt)
    folded = fold_system(chat)
    return folded if render_chat(chat, tokenizer) == render_chat(folded, tokenizer) else chat


def write_card(
    folder: Path,
    settings: Any,
    facts: Mapping[str, Any],
    before: Mapping[str, float],
    after: Mapping[str, float],
    hub: HubTarget | None,
) -> None:
    """Write the model card (README.md) of an adapter."""
    why_none = "Not measured." if settings.eval_ratio else "No tasks were held out (eval_ratio 0)."
    rows = [
        f"| {name} | {before[name]:.4f} | {after[name]:.4f} |"
        for name in before
        if name in after and (not name.startswith("num_") or before[name] != after[name])
    ]
    evaluation = "\n".join(["| held-out metric | before | after |", "|---|---|---|", *rows])
    settings_text = "\n".join(f"- {name}: `{value}`" for name, value in facts["settings"].items())
    data = "\n".join(f"- {name}: {value}" for name, value in facts["data"].items())
    versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
    header = {
        "library_name": "peft",
        "base_model": settings.hf_model_path,
        "tags": ["collabllm", "lora", facts["method"], "multi-turn"],
        "pipeline_tag": "text-generation",
    }
    text = f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {facts["run_name"]}

A LoRA adapter of `{settings.hf_model_path}` that collaborates over several turns: it asks for what
is missing and uses what was said. Trained with CollabLLM {facts["made_by"]}
`{settings.dataset}`.

## Data
{data}

## Hyperparameters
{settings_text}

## Evaluation on held-out tasks
{evaluation if rows else why_none}

## How to load it
```python
{_loading_code(settings, hub.repo_id if hub else "PATH/TO/THIS/FOLDER", facts)}
```

Versions: {versions}. `{CONFIG_FILE}` runs the same training again.
"""
    write_text(folder / "README.md", text)


def _loading_code(settings: Any, where: str, facts: Mapping[str, Any]) -> str:
    """Write the code that loads the adapter and answers under the prompt it was trained with."""
    model = settings.hf_model_path
    if facts["bundled"]:
        load = f"""from transformers import AutoTokenizer

from collabllm.models import load_base_model

base = load_base_model("{model}")"""
    else:
        other = settings.model_revision != "main"
        revision = f'revision="{settings.model_revision}", ' if other else ""
        load = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained(
    "{model}", {revision}dtype="auto", device_map="auto"
)"""
    messages = "\n".join(
        f'    {{"role": "{message["role"]}", "content": {message["content"]!r}}},'
        for message in facts["messages"]
    )
    given = facts["template_options"].items()
    options = "".join(f",\n    {name}={value!r}" for name, value in given)
    return f'''from peft import PeftModel
{load}
tokenizer = AutoTokenizer.from_pretrained("{where}")
model = PeftModel.from_pretrained(base, "{where}")
messages = [
{messages}
]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True{options}
).to(model.device)
output = model.generate(**inputs, eos_token_id={facts["end_ids"]}, max_new_tokens=200)
reply = output[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(reply, skip_special_tokens=True))'''
