"""The project's own shape: import arrows, the lock, the demo data, no machine's paths."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from collabllm.data.demo_generator import generate_rows, load_material
from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"messages", "prompts", "logging_utils", "flags", "hub", "trackers", "__init__", "data"}
    | {"errors", "event_loop", "files", "settings", "__main__", "provenance"},
    {"models", "data_processing", "servers", "cli"},
    {"tasks"},
    {"simulation"},
    {"rewards"},
    {"training", "data_engine", "evaluation"},
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
        assert (part, other) != ("training", "simulation")


@pytest.mark.parametrize("module", ["collabllm", "collabllm.data_processing"])
def test_importing_it_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


def test_the_demo_dataset_is_what_the_generator_writes():
    import json

    lines = (ROOT / "collabllm/data/demo_multiturn.jsonl").read_text().splitlines()

    assert [json.loads(line) for line in lines] == list(generate_rows())


def test_the_demo_dataset_is_as_large_and_varied_as_promised():
    dataset = load_multiturn_dataset("demo")
    rows = dataset.to_list()
    turns = {}
    for row in rows:
        turns.setdefault((row["conv_id"], row["turn_id"]), []).append(row)
    lengths = {}
    for conv_id, turn_id in turns:
        lengths[conv_id] = max(lengths.get(conv_id, 0), (turn_id + 1) // 2)
    kinds = {row["single_turn_metadata"]["reply_kind"] for row in rows}

    assert len(lengths) == 160
    assert len(load_material()) == 40
    assert set(lengths.values()) == {1, 2, 3, 4}
    assert all(len(candidates) == 3 for candidates in turns.values())
    assert kinds == {"best", "generic", "guess", "lecture", "needless", "reask"}
    for candidates in turns.values():
        best = max(candidates, key=lambda row: row["score"])
        assert best["single_turn_metadata"]["reply_kind"] == "best"
        assert len({row["completion"] for row in candidates}) == 3


def test_the_demo_holds_out_whole_domains():
    sides = multiturn_dataset_to_sft(
        load_multiturn_dataset("demo"), eval_ratio=0.2, split_by="single_turn_metadata.domain"
    )

    domains = {s: {m["domain"] for m in sides[s]["single_turn_metadata"]} for s in sides}
    assert domains["eval"] == {
        "api_request",
        "birthday_party",
        "dinner_menu",
        "moving_checklist",
        "python_error",
        "study_plan",
        "wedding_speech",
    }
    assert domains["train"].isdisjoint(domains["eval"])
