"""The calls that docs and notebook show: their imports work, and their arguments are settings."""

import ast
import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path

import pytest
from trl import DPOConfig, SFTConfig

from collabllm.data_engine import BuildSettings
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.settings import to_settings
from collabllm.simulation.settings import SimulationSettings
from collabllm.training.settings import DPOSettings, SFTSettings

ROOT = Path(__file__).parents[1]
CALLS = {
    "simulate_chats": (SimulationSettings, None),
    "build_dataset": (BuildSettings, None),
    "evaluate": (EvaluationSettings, None),
    "train_sft": (SFTSettings, SFTConfig),
    "train_dpo": (DPOSettings, DPOConfig),
}


def shown_code():
    for page in sorted((ROOT / "docs").glob("*.md")):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
            yield page.name, block
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(notebook.read_text())["cells"]:
            source = "".join(cell["source"])
            is_code = cell["cell_type"] == "code"
            for block in [source] if is_code else re.findall(r"```python\n(.*?)```", source, re.S):
                yield notebook.name, block


def shown_calls():
    for page, block in shown_code():
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in CALLS:
                yield page, node


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("simulation.md", "simulate_chats"),
        ("build.md", "build_dataset"),
        ("evaluation.md", "evaluate"),
        ("training.md", "train_sft"),
        ("training.md", "train_dpo"),
    ],
)
def test_each_stage_is_shown_as_a_call(page, name):
    assert (page, name) in {(where, call.func.id) for where, call in shown_calls()}


def test_what_shown_code_imports_from_us_exists():
    for page, block in shown_code():
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("collabllm"):
                for alias in node.names:
                    assert hasattr(import_module(node.module), alias.name), f"{page}: {alias.name}"


@pytest.mark.parametrize(
    ("page", "call"), shown_calls(), ids=lambda part: getattr(getattr(part, "func", None), "id", "")
)
def test_shown_arguments_are_settings(page, call):
    settings, config = CALLS[call.func.id]
    given = {word.arg: word.value for word in call.keywords}
    if config:
        trainers = {field.name for field in dataclasses.fields(config)}
        own = {field.name for field in dataclasses.fields(settings)}
        given = {name: value for name, value in given.items() if name in own - trainers} | {
            name: value for name, value in given.items() if name not in trainers
        }

    to_settings(settings, None, {name: _value(node) for name, node in given.items()})


def test_shown_evaluations_take_tasks_that_no_arm_was_trained_on():
    calls = [call for _, call in shown_calls() if call.func.id == "evaluate"]

    assert len(calls) > 1
    for call in calls:
        assert {"held_out_of", "tasks"} & {word.arg for word in call.keywords}


def _value(node):
    return ast.literal_eval(node) if not isinstance(node, ast.Call) else "outputs/run"
