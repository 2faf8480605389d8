"""Arms of an evaluation: which model answers, with which adapters and system prompt."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, fields
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from collabllm.evaluation.results import ArmInfo
from collabllm.hub import find_base_revision, looks_local
from collabllm.prompts import load_prompt
from collabllm.settings import read_mapping, unknown_names
from collabllm.simulation.assistant import Assistant, OpenAIAssistant
from collabllm.simulation.assistant.registry import (
    load_on_ray,
    local_options,
    server_options,
    start_vllm,
)
from collabllm.simulation.assistant.settings import EngineSettings
from collabllm.simulation.session import Session
from collabllm.tasks import Task
from collabllm.tasks.held_out import read_trainings, task_keys, trained_keys

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """One competitor: the local base model, a server's `model`, or an adapter on either.

    `lora_path` (which a vLLM server is told to load) is a folder or Hub id, or a pattern
    (`outputs/run-*`) or list: several trainings of one recipe. `system_prompt` is `default`,
    `proactive`, `none` or a text.
    """

    name: str
    lora_path: str | list[str] | None = None
    system_prompt: str = "default"
    model: str | None = None
    base_url: str | list[str] | None = None

    @classmethod
    def read(cls, given: "str | Mapping[str, Any] | Arm") -> "Arm":
        """Read `name=sft,lora_path=outputs/run`, or a mapping of YAML.

        Raises:
            ValueError: If a key is unknown, the name is missing.
        """
        if isinstance(given, Arm):
            return given
        values = {
            key: value for key, value in read_mapping(given, "--arm").items() if value is not None
        }
        known = [field.name for field in fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise ValueError(f"--arm {given}: {unknown_names(unknown, known, prefix='')}")
        if not values.get("name"):
            raise ValueError(f"--arm {given} needs a name, as in name=base.")
        return cls(**values)

    def prompt(self, default: str) -> str:
        """Return the text of the system prompt."""
        if self.system_prompt == "default":
            return default
        if self.system_prompt == "proactive":
            return load_prompt("assistant_proactive")
        return "" if self.system_prompt == "none" else self.system_prompt

    def to_info(self, hf_model_path: str) -> ArmInfo:
        """Find the adapters, and describe the arm.

        Raises:
            FileNotFoundError: If an adapter's folder is not there, or a pattern finds none.
        """
        paths = self._find_adapters()
        for path in paths:
            if looks_local(path) and not (Path(path) / "adapter_config.json").is_file():
                raise FileNotFoundError(
                    f"--arm {self.name}: there is no adapter in {path}; train it first, or name "
                    "another lora_path."
                )
        is_one = isinstance(self.lora_path, str) and not has_magic(self.lora_path)
        return ArmInfo(
            self.name,
            [] if is_one else _seed_names(paths),
            paths,
            self.system_prompt,
            self.model or hf_model_path,
            self.base_url,
        )

    def _find_adapters(self) -> list[str]:
        if not isinstance(self.lora_path, str):
            return list(self.lora_path or ())
        if not has_magic(self.lora_path):
            return [self.lora_path]
        matching = sorted(glob(self.lora_path))  # noqa: PTH207  # also of absolute paths
        found = [path for path in matching if _is_adapter(path)]
        if not found:
            raise FileNotFoundError(
                f"--arm {self.name}: no folder with an adapter fits {self.lora_path}."
            )
        return found


def _is_adapter(path: str) -> bool:
    return (Path(path) / "adapter_config.json").is_file()


def _seed_names(paths: Sequence[str]) -> list[str]:
    """Name the trainings by their folders, with as much of the path as tells them apart."""
    for depth in range(1, 9):
        names = ["_".join(Path(path).parts[-depth:]).replace("/", "") for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"lora_path names an adapter twice: {', '.join(paths)}.")


@dataclass(kw_only=True)
class ArmSettings(EngineSettings):
    """What runs the arms that name no server."""

    def __post_init__(self) -> None:
        """Refuse an engine that arms have a word of their own for."""
        super().__post_init__()
        if self.assistant_kind not in ("local", "ray", "vllm"):
            raise ValueError(
                f"--assistant is local, ray or vllm here, got {self.assistant_kind}; an arm behind "
                "a server that runs says so itself: --arm name=...,model=...,base_url=...."
            )


class ArmPool:
    """Gives each arm its assistant; all local arms share one copy of the base model's weights.

    So do those on a vLLM server that is started for them; on a Ray cluster each adapter loads the
    model anew.

    Args:
        settings: Settings of the model, of what runs it, and of generation.
        session: Ledger and clients of the run.
    """

    def __init__(self, settings: ArmSettings, session: Session) -> None:
        self.settings, self.session = settings, session
        self._model: Any = None
        self._on_vllm: OpenAIAssistant | None = None
        self._tokenizers: dict[str | None, Any] = {}  # by adapter
        self._adapters: dict[str, str] = {}

    @contextmanager
    def assistant(self, arm: Arm, lora_path: str | None = None) -> Iterator[Assistant]:
        """Switch to an adapter of the arm and yield its assistant; one local arm at a time."""
        if arm.model or self.settings.assistant_kind == "vllm":
            served = self._server(arm) if arm.model else self._own_server()
            if lora_path:
                served.use_adapter(lora_path)
            yield served
            return
        if self.settings.assistant_kind == "ray":
            with load_on_ray(self.settings, lora_path) as spread:
                yield spread
            return
        from collabllm.simulation.assistant.local import LocalAssistant  # torch loads here

        model = self._switch(lora_path)
        with LocalAssistant(
            self.settings.hf_model_path,
            **local_options(self.settings),
            model=model,
            tokenizer=self._load_tokenizer(lora_path),
        ) as assistant:
            assistant.name = lora_path or self.settings.hf_model_path
            yield assistant

    def counter(self, arm: Arm) -> Callable[[str], int]:
        """Return what counts the arm's tokens, without its weights."""
        if arm.model:
            return self._server(arm).count_tokens
        tokenizer = self._load_tokenizer()
        return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)

    def _server(self, arm: Arm) -> OpenAIAssistant:
        client = self.session.client(arm.base_url)
        return OpenAIAssistant(arm.model or "", client=client, **server_options(self.settings))

    def _own_server(self) -> OpenAIAssistant:
        """Return the base model on the vLLM server, which starts for the first arm."""
        if self._on_vllm is None:
            self._on_vllm = start_vllm(self.settings, self.session)
        return copy(self._on_vllm)

    def _load_tokenizer(self, lora_path: str | None = None) -> Any:
        if lora_path not in self._tokenizers:
            from collabllm.models import load_tokenizer

            self._tokenizers[lora_path] = load_tokenizer(
                self.settings.hf_model_path, adapter=lora_path
            )
        return self._tokenizers[lora_path]

    def _switch(self, lora_path: str | None) -> Any:
        """Return the model with the adapter in use, or with none."""
        from collabllm.models import choose_dtype, load_adapter, load_base_model

        if self._model is None:
            self._model = load_base_model(
                self.settings.hf_model_path,
                use_4bit=self.settings.load_in_4bit,
                dtype=choose_dtype(),
            )
        if lora_path is None:
            if self._adapters:
                self._model.base_model.disable_adapter_layers()
            return self._model
        if lora_path not in self._adapters:
            self._warn_of_revision(lora_path)
            name = f"adapter_{len(self._adapters)}"
            if self._adapters:
                self._model.load_adapter(lora_path, adapter_name=name)
            else:
                self._model = load_adapter(self._model, lora_path, name)
            self._adapters[lora_path] = name
        self._model.base_model.enable_adapter_layers()
        self._model.set_adapter(self._adapters[lora_path])
        return self._model

    def _warn_of_revision(self, lora_path: str) -> None:
        revision = find_base_revision(lora_path, self.settings.hf_model_path)
        if revision != "main":
            logger.warning(
                "%s was trained on revision %s of %s, and all arms share its main one. Give a "
                "folder with that revision as --hf_model_path.",
                lora_path,
                revision,
                self.settings.hf_model_path,
            )


def check_not_trained_on(arm: ArmInfo, tasks: Sequence[Task]) -> list[str]:
    """Refuse tasks that an arm's adapters were trained on, as their runs say.

    An adapter that was trained from another one is checked for both trainings.

    Returns:
        A sentence for each adapter of which a training is unknown, or its data cannot be read.

    Raises:
        ValueError: If there is such a task; the message names some.
    """
    unchecked = []
    for path in arm.lora_paths:
        trainings = list(read_trainings(path))
        whole = bool(trainings) and not trainings[-1].get("lora_path")
        checked = [refuse_trained(arm.name, path, tasks, config) for config in trainings]
        if not whole or not all(checked):
            unchecked.append(
                f"The tasks were not checked against the training of arm {arm.name} ({path}): its "
                "settings or data are not on this machine, or have no column in common with the "
                "tasks. It may have seen them."
            )
    return unchecked


def refuse_trained(arm: str, path: str, tasks: Sequence[Task], config: Mapping[str, Any]) -> bool:
    """Refuse tasks that one training saw, by what it was split by or by their goals.

    Args:
        arm: Name of the arm.
        path: Folder of its adapter.
        tasks: Tasks of an evaluation.
        config: Settings of the training, by name.

    Returns:
        Whether its data could be read, and have a column in common with the tasks.

    Raises:
        ValueError: If there is such a task; the message names some.
    """
    try:
        trained = trained_keys(config)
    except (OSError, ValueError) as error:
        logger.warning(
            "Arm %s: its training data cannot be read (%s); tasks are not checked against it.",
            arm,
            error,
        )
        return False
    keys = {task.task_id: task_keys(task.to_row(), config["split_by"]) for task in tasks}
    found = [task_id for task_id, own in keys.items() if trained & {*own}]
    if found:
        raise ValueError(
            f"Arm {arm} was trained on {len(found)} of {len(tasks)} tasks "
            f"({', '.join(found[:5])}). Take held-out ones: --held_out_of {path}."
        )
    columns = {key.partition(":")[0] for own in keys.values() for key in own}
    return not trained or any(key.partition(":")[0] in columns for key in trained)
