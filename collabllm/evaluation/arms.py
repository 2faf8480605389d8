"""Arms of an evaluation: which model answers, with which adapter and system prompt."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collabllm.data_processing.loading import load_multiturn_dataset
from collabllm.data_processing.splitting import is_eval_task, task_key
from collabllm.prompts import load_prompt
from collabllm.simulation.assistant import Assistant, OpenAIAssistant
from collabllm.simulation.session import Session
from collabllm.tasks import Task

logger = logging.getLogger(__name__)

_KEYS = ("name", "lora_path", "system_prompt", "model", "base_url")
_PROMPTS = ("default", "proactive", "none")
_TRAIN_CONFIG = "train_config.yaml"


@dataclass(frozen=True)
class Arm:
    """One competitor: the local base model, an adapter on it (`lora_path`), or a server's `model`.

    `system_prompt` is `default`, `proactive`, `none` or a text.
    """

    name: str
    lora_path: str | None = None
    system_prompt: str = "default"
    model: str | None = None
    base_url: str | None = None

    def prompt(self, default: str) -> str:
        """Return the text of the system prompt."""
        if self.system_prompt == "default":
            return default
        if self.system_prompt == "proactive":
            return load_prompt("assistant_proactive")
        return "" if self.system_prompt == "none" else self.system_prompt


def parse_arm(text: str) -> Arm:
    """Read `name=sft,lora_path=outputs/run`; a system prompt may hold commas when it comes last.

    Raises:
        argparse.ArgumentTypeError: If a key is unknown or the name is missing.
    """
    values: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if equals and key.strip() in _KEYS:
            last = key.strip()
            values[last] = value.strip()
        elif last == "system_prompt":
            values[last] += f",{part}"
        else:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not one of {', '.join(f'{key}=' for key in _KEYS)} in --arm {text}"
            )
    if not values.get("name") or any(char in values["name"] for char in "/\\"):
        raise argparse.ArgumentTypeError(f"--arm {text} needs name=NAME, without slashes")
    if "model" in values and "lora_path" in values:
        raise argparse.ArgumentTypeError(
            f"--arm {text}: a server's model takes no lora_path; load the adapter into the server"
        )
    return Arm(**values)


class ArmPool:
    """Gives each arm its assistant; all local arms share one copy of the base model's weights.

    Args:
        args: Flags of the local model and of generation.
        session: Ledger and clients of the run.
    """

    def __init__(self, args: argparse.Namespace, session: Session) -> None:
        self.args, self.session = args, session
        self._model: Any = None
        self._tokenizer: Any = None
        self._adapters: dict[str, str] = {}

    @contextmanager
    def assistant(self, arm: Arm) -> Iterator[Assistant]:
        """Switch to the arm's adapter and yield its assistant; one local arm at a time."""
        if arm.model:
            yield OpenAIAssistant(
                arm.model,
                temperature=self.args.temperature,
                max_tokens=self.args.max_new_tokens,
                client=self.session.client(arm.base_url),
                tokenizer_path=self.args.tokenizer_path,
            )
            return
        from collabllm.simulation.assistant.local import LocalAssistant  # torch loads here

        model = self._switch(arm.lora_path)
        with LocalAssistant(
            self.args.hf_model_path,
            max_new_tokens=self.args.max_new_tokens,
            temperature=self.args.temperature,
            do_sample=self.args.temperature > 0,
            model=model,
            tokenizer=self._tokenizer,
        ) as assistant:
            assistant.name = arm.lora_path or self.args.hf_model_path
            yield assistant

    def _switch(self, lora_path: str | None) -> Any:
        """Return the model with the adapter in use, or with none."""
        from collabllm.models import choose_dtype, load_adapter, load_base_model, load_tokenizer

        if self._model is None:
            self._model = load_base_model(
                self.args.hf_model_path,
                use_4bit=self.args.load_in_4bit,
                dtype=choose_dtype(generating=True),
            )
            self._tokenizer = load_tokenizer(self.args.hf_model_path)
        if lora_path is None:
            if self._adapters:
                self._model.base_model.disable_adapter_layers()
            return self._model
        if lora_path not in self._adapters:
            name = f"adapter_{len(self._adapters)}"
            if self._adapters:
                self._model.load_adapter(lora_path, adapter_name=name)
            else:
                self._model = load_adapter(self._model, lora_path, name)
            self._adapters[lora_path] = name
        self._model.base_model.enable_adapter_layers()
        self._model.set_adapter(self._adapters[lora_path])
        return self._model


def check_arms(arms: Sequence[Arm]) -> None:
    """Check names and adapters before any model loads.

    Raises:
        ValueError: If a name is used twice.
        FileNotFoundError: If an adapter's folder is not there.
    """
    names = [arm.name for arm in arms]
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise ValueError(f"Arms need names of their own; used twice: {', '.join(sorted(double))}.")
    for arm in arms:
        path = arm.lora_path
        if path and _looks_local(path) and not (Path(path) / "adapter_config.json").is_file():
            raise FileNotFoundError(f"--arm {arm.name}: there is no adapter in {path}.")


def _looks_local(path: str) -> bool:
    """Tell a folder from a Hub id, which has at most one slash."""
    return Path(path).exists() or path.startswith((".", "/", "~", "outputs/"))


def check_not_trained_on(arm: Arm, tasks: Sequence[Task]) -> None:
    """Refuse tasks that an adapter's `train_config.yaml` says it was trained on.

    An adapter that was trained from another one (`lora_path` in its configuration) is checked for
    both trainings.

    Raises:
        ValueError: If there is such a task; the message names some.
    """
    path = arm.lora_path
    while path:
        file = Path(path) / _TRAIN_CONFIG
        if not file.is_file():
            logger.info("%s: no %s, so its training tasks are unknown.", path, _TRAIN_CONFIG)
            return
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        _refuse_trained(arm, tasks, config)
        path = config.get("lora_path")


def _refuse_trained(arm: Arm, tasks: Sequence[Task], config: dict[str, Any]) -> None:
    try:
        dataset = load_multiturn_dataset(
            config["hf_dataset_path"], config.get("dataset_split", "train")
        )
    except (OSError, ValueError) as error:
        logger.warning(
            "Arm %s: its training data cannot be read (%s); tasks are not checked against it.",
            arm.name,
            error,
        )
        return
    split_by, eval_ratio = config["split_by"], config["eval_ratio"]
    columns = {"conv_id", "single_turn_prompt", "single_turn_metadata", split_by}
    rows = dataset.select_columns(sorted(columns & set(dataset.column_names)))
    keys = {task_key(row, split_by) for row in rows}
    trained = {key for key in keys if not is_eval_task(key, eval_ratio)}
    found = [task.task_id for task in tasks if task_key(task.to_row(), split_by) in trained]
    if found:
        raise ValueError(
            f"Arm {arm.name} was trained on {len(found)} of {len(tasks)} tasks "
            f"({', '.join(found[:5])}). Evaluate on held-out ones: --side eval --eval_ratio "
            f"{eval_ratio} --split_by {split_by}."
        )
