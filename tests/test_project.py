"""The project's own shape: import arrows, the lock, the demo data, no machine's paths."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"messages", "prompts", "logging_utils", "hub", "trackers", "__init__", "data"}
    | {"allocator", "errors", "lazy_exports", "event_loop", "files", "settings", "__main__"},
    {"models", "data_processing", "servers", "cli", "provenance", "web"},
    {"tasks"},
    {"simulation"},
    {"rewards"},
    {"training", "data_engine", "evaluation"},
    {"chat", "ablation"},
]


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        parts |= {n.split(".")[1] for n in names if n.startswith("collabllm.")}
    return parts


@pytest.mark.parametrize(
    "path", sorted((ROOT / "collabllm").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_one_way(path):
    part = path.relative_to(ROOT / "collabllm").parts[0].removesuffix(".py")
    level = {name: idx for idx, names in enumerate(LAYERS) for name in names}

    assert part in level, f"{part} has no layer yet"
    for other in imported_parts(path) - {part}:
        assert level[other] < level[part], f"{part} imports {other}"
        is_online = path.name.startswith("grpo")  # trains on conversations while they are held
        assert (part, other) != ("training", "simulation") or is_online


@pytest.mark.parametrize("module", ["collabllm", "collabllm.data_processing"])
def test_importing_it_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_flags_loads_neither_torch_nor_pandas():
    modules = "collabllm.data_engine.settings, collabllm.evaluation.settings"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'pandas'}} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", ["simulation", "data_engine", "data_processing", "rewards"])
def test_dir_and_help_show_the_public_names(package):
    code = f"import collabllm.{package} as p; print(set(p.__all__) <= set(dir(p))); help(p)"

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert shown.startswith("True")
    listed = import_module(f"collabllm.{package}").__all__
    assert [name for name in listed if name not in shown] == []


def test_the_lock_names_only_the_public_index():
    lock = (ROOT / "uv.lock").read_text()

    assert set(re.findall(r'registry = "([^"]*)"', lock)) == {"https://pypi.org/simple"}
    hosts = {url.split("/")[2] for url in re.findall(r'url = "([^"]*)"', lock)}
    assert hosts == {"files.pythonhosted.org"}
    assert not re.search(r'(path|directory) = "/', lock)
    assert "llama-cpp-python" not in lock


def test_no_tracked_file_is_large():
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")

    large = [f for f in tracked if f and (ROOT / f).exists() and (ROOT / f).stat().st_size > 1e6]
    assert large == []
