"""What the README and the guides print exists: flags, configurations, targets, names, links."""

import ast
import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml

from collabllm.settings import parse_settings, parse_settings_and_rest
from collabllm.tasks import Fact, Task, to_task
from collabllm.tasks.matching import facts_told
from tests.printed import code_blocks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CLAUDE.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TRAINER_CONFIGS = {"train_sft": "SFTConfig", "train_dpo": "DPOConfig", "train_grpo": "GRPOConfig"}
SHELL_ENDS = ("&", "|", ";", "&&", ">", "#")


def shell_lines():
    """Give (page, line) of every command: those of bash blocks, and those between backticks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = "\n".join(code_blocks(text, "(?:bash|sh)")).replace("\\\n", " ")
        without_blocks = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
        inline = re.findall(r"`([^`]+)`", without_blocks)
        yield from ((page.name, line) for line in [*blocks.splitlines(), *inline])
    for script in sorted((ROOT / "scripts").glob("*.py")):
        text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        yield from ((script.name, line) for line in text.splitlines()[1:])


def script_calls():
    """Give (page, script, words after it) of every call of a script."""
    for page, line in shell_lines():
        found = re.search(r"\bscripts/(\w+)\.py\b(.*)", line.replace("\n", " "))
        if not found:
            continue
        words = []
        for word in shlex.split(found[2], comments=True):
            if word in SHELL_ENDS:
                break
            words.append(word)
        yield page, found[1], [word for word in words if word not in ("…", "...")]


CALLS = sorted({(page, name, tuple(words)) for page, name, words in script_calls()})


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_class(name):
    found = [
        value
        for key, value in vars(load_script(name)).items()
        if key.endswith("Settings") and key != "Settings" and dataclasses.is_dataclass(value)
    ]
    (only,) = found
    return only


def all_settings():
    """Give the fields of the settings of all scripts."""
    for path in sorted((ROOT / "scripts").glob("*.py")):
        yield from dataclasses.fields(settings_class(path.stem))


def test_the_pages_call_scripts():
    assert {"train_sft", "train_dpo", "build_dataset", "evaluate", "simulate_chats"} <= {
        name for _, name, _ in CALLS
    }


@pytest.mark.parametrize(("page", "name", "words"), CALLS, ids=lambda value: str(value)[:60])
def test_a_printed_command_is_one_that_its_script_takes(page, name, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if not words or "--help" in words:
        assert (ROOT / f"scripts/{name}.py").is_file()
        return
    if name not in TRAINER_CONFIGS:
        parse_settings(settings_class(name), words)
        return
    trainer_config = getattr(importlib.import_module("trl"), TRAINER_CONFIGS[name])
    known = {field.name for field in dataclasses.fields(trainer_config)}
    _, rest = parse_settings_and_rest(settings_class(name), lambda: known, words)
    assert set(rest) <= known, f"{page}: {name} has no flags {sorted(set(rest) - known)}"


def test_printed_comparisons_take_tasks_that_no_arm_was_trained_on():
    """Others are refused; `demo` has the kinds that the demo trains on."""
    calls = [call for call in CALLS if call[1] in ("evaluate", "study")]
    compared = [
        (page, words, settings)
        for page, name, words in calls
        if "--help" not in words and "--study" not in words
        for settings in [parse_settings(settings_class(name), words)]
        if any(arm.lora_path for arm in settings.arms)
    ]

    assert len(compared) > 8
    trained_on = [(page, words) for page, words, s in compared if not _leaves_out_training(s)]
    assert trained_on == []


def _leaves_out_training(settings):
    return settings.held_out_of or settings.tasks not in ("demo", "demo_train")


OF_OTHERS = set(  # flags of uv, pip, accelerate, vLLM and its router
    "config_file num_processes data-parallel-size enable-lora extra generation-config "
    "gpu-memory-utilization logprobs-mode max-lora-rank max-num-batched-tokens no-deps no-sync "
    "policy reinstall torch-backend weight-transfer-config worker-urls".split()
)


def test_every_flag_that_a_page_names_is_there():
    known = {field.name for field in all_settings()}
    known |= {alias[2:] for field in all_settings() for alias in field.metadata.get("aliases", ())}
    for name in TRAINER_CONFIGS.values():
        known |= {f.name for f in dataclasses.fields(getattr(importlib.import_module("trl"), name))}
    for path in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'"--(\w+)"', path.read_text(encoding="utf-8")))
    named = {
        (page, flag)
        for page, line in shell_lines()
        for flag in re.findall(r"(?<![\w-])--([a-z][\w-]+)", line)
    }

    assert len(named) > 100
    assert {(p, f) for p, f in named if f not in known | OF_OTHERS | {"config", "help"}} == set()


def test_no_switch_is_printed_with_on_or_off():
    """These are YAML's; a flag takes true and false."""
    switches = {field.name for field in all_settings() if field.type in (bool, "bool")}
    for page, line in shell_lines():
        for name, word in re.findall(r"--(\w+) (\w+)", line):
            assert name not in switches or word not in ("on", "off"), f"{page}: --{name} {word}"


def test_a_printed_launch_says_how_many_processes():
    """accelerate refuses our files without."""
    launches = [line for _, line in shell_lines() if "accelerate launch" in line]

    assert len(launches) > 1
    assert [line for line in launches if "--num_processes" not in line] == []


def test_printed_evaluations_by_a_preset_write_into_folders_of_their_own():
    """One after the other they would be refused in one folder."""
    calls = {words for _, name, words in CALLS if name == "evaluate" and "--config" in words}
    folders = Counter(parse_settings(settings_class("evaluate"), w).output_dir for w in calls)

    assert len(calls) > 8
    assert [folder for folder, number in folders.items() if number > 1] == []


def test_printed_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page, line in shell_lines():
        for words in re.findall(r"^make((?: [a-z]+)+)", line.strip()):
            assert set(words.split()) <= set(targets), f"{page}: {line}"


def test_printed_configurations_exist_and_are_yaml():
    for page in PAGES:
        for name in re.findall(r"\bconfigs/[\w/.-]+\.yaml", page.read_text(encoding="utf-8")):
            assert isinstance(yaml.safe_load((ROOT / name).read_text()), dict), f"{page}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_the_pages_imports_what_exists(page):
    for block in code_blocks(page.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("collabllm"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}: {node.module}.{alias.name}"


def test_the_columns_of_a_task_are_read_as_the_page_says():
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    table = text.partition("## Tasks of your own")[2].partition("\n## ")[0]
    columns = re.findall(r"(?m)^\| `(\w+)`", table)
    examples = dict(re.findall(r"(?m)^\| `(facts|told_openings)` .*?`(\{.*?\})`", table))
    row = {"single_turn_prompt": "A party.", **{k: [json.loads(examples[k])] for k in examples}}

    task = to_task(row)

    assert task.facts == (
        Fact("guests", "We are 12.", ("many", "guests"), "12", "How many guests?", 2),
    )
    assert [facts_told(task.facts, [user(o.text)]) for o in task.told_openings] == [{"guests"}]
    fields = {f.name for f in dataclasses.fields(Task)} - {"metadata"} | {"single_turn_metadata"}
    assert set(columns) == fields


def user(text):
    return {"role": "user", "content": text}


def sections_with_figures():
    """Give (page, heading, text) of each part of a page that states measured numbers."""
    unit = r"(?:%|s|ms|MB|GB|tokens|a minute|per second)(?!\w)"
    for page in PAGES:
        for part in re.split(r"(?m)^(?=#{1,3} )", page.read_text(encoding="utf-8")):
            words = re.sub(r"```.*?```", "", part, flags=re.DOTALL)
            if re.search(rf"\d\s?{unit}", words):
                yield page.name, part.partition("\n")[0].strip("# "), part


NOT_MEASURED = {  # rules, limits, thresholds of a rule, arithmetic with numbers that are assumed
    ("CONTRIBUTING.md", "Rules"),
    ("rewards.md", "Metrics"),
    ("sandbox.md", "Tiers"),
    ("scale.md", "One million conversations with an 8B model: the arithmetic"),
}


def test_every_figure_stands_beside_the_command_that_made_it():
    source = r"`[^`]*(?:\.py|\.yaml|make \w+)[^`]*`|```(?:bash|sh)\n"
    without = {
        (page, heading)
        for page, heading, text in sections_with_figures()
        if not re.search(source, text)
    }

    assert without <= NOT_MEASURED
