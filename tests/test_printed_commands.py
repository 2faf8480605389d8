"""Every command that the README and the guides print runs: the real one, on little of everything.

What is printed is executed as it stands, with further flags that make it small (a tiny model, one
step, two tasks), on files that have the printed names. Commands that are marked need a GPU, an
account or the network; of those, the ones that call a script run here in small, too.
"""

import contextlib
import json
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

from collabllm.data.demo_generator import generate_rows
from collabllm.servers.process import free_port
from scripts.simulate_chats import main as simulate
from scripts.train_sft import main as train_sft
from tests.evaluation.study_people import Participant
from tests.evaluation.test_study import hosted, make_study
from tests.fake_server import FakeServer
from tests.printed import MARK, ROOT, printed_commands
from tests.tasks.test_sources import IN3
from tests.training.conftest import save_tiny_model, write_dataset

pytestmark = pytest.mark.slow

COMMANDS = printed_commands()
TRAINING = (
    "--hf_model_path {tiny} --max_steps 1 --max_eval_pairs 2 --num_sample_replies 0 "
    "--report_to none --push_to_hub false --load_in_4bit false --max_length 1024 --batch_size 1 "
    "--gradient_accumulation_steps 1"
)
TALKING = "--hf_model_path {tiny} --num_tasks 2 --max_turns 1 --max_new_tokens 3"
ONLINE = {
    "max_steps": 1,
    "batch_size": 2,
    "num_generations": 2,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 4,
    "max_turns": 1,
    "max_eval_tasks": 1,
    "max_length": 1024,
    "push_to_hub": "false",
    "report_to": "none",
}
SMALL = {
    "scripts/ablate.py": "--hf_model_path {tiny} --seeds 0 --start small_sft.yaml "
    "--evaluations small_evaluation.yaml --flags {online}",
    "scripts/train_sft.py": TRAINING,
    "scripts/train_dpo.py": TRAINING,
    "scripts/train_grpo.py": TRAINING.replace("--max_eval_pairs 2 ", "")
    + " --batch_size 2 --num_generations 2 --max_turns 1 "
    "--max_completion_length 4 --num_samples 1 --max_eval_tasks 1 --max_length 1024 "
    "--tasks demo --user sharded",
    "scripts/simulate_chats.py": TALKING,
    "scripts/build_dataset.py": f"{TALKING} --num_candidates 2 --num_samples 1",
    "scripts/correct_questions.py": "--output_dir outputs/rows",
    "scripts/compare_chats.py": "--hf_model_path {tiny} --num_shown 1 --max_turns 1 "
    "--max_new_tokens 3",
    "scripts/evaluate.py": f"{TALKING} --num_tasks 8",
    "scripts/chat.py": "--hf_model_path {tiny} --port {port}",
    "scripts/study.py": "--hf_model_path {tiny} --port {port}",
    "benchmarks/bad_hour.py": "--num_conversations 8 --concurrency 4 --down_s 0.5 --timeout_s 5",
    "benchmarks/build_throughput.py": "--num_tasks 1 --num_baseline_tasks 1 --num_candidates 2 "
    "--num_samples 1 --max_new_tokens 2",
    "benchmarks/client_throughput.py": "--num_conversations 5 --concurrency 5 --delay_s 0.01",
    "benchmarks/confidence.py": "--num_turns 5",
    "benchmarks/evaluation_statistics.py": "--num_runs 1",
    "benchmarks/generation.py": "--hf_model_path {tiny} --rows 2 --repeats 1",
    "benchmarks/grpo_step.py": "--model {tiny} --steps 2 --max_completion_length 4 --max_turns 1 "
    "--num_samples 1",
    "benchmarks/learning_rates.py": "--hf_model_path {tiny} --max_steps 1 --max_eval_pairs 2 "
    "--batch_size 1 --learning_rates 2e-4",
    "benchmarks/loading_memory.py": "--num_rows 20",
    "benchmarks/matching.py": "--num_rows 2 --matchers cues",
    "benchmarks/rollout_throughput.py": "--num_conversations 1 --max_turns 1 --max_new_tokens 2 "
    "--baseline_conversations 1",
    "benchmarks/sandbox.py": "--repeats 1",
    "benchmarks/scale.py": "--num_conversations 5 --latency_s 0.01",
    "benchmarks/sft_tokens.py": "--num_conversations 2 --no_training",
    "benchmarks/train_throughput.py": "--size tiny --steps 2 --batch_size 1 --only ours",
}
FILES = {  # what the pages call it: what it is here
    "MODEL": "tiny",
    "DATASET": "my_chats.jsonl",
    "TASKS": "my_chats.jsonl",
    "A.jsonl": "my_chats.jsonl",
    "org/B": "more.jsonl",
    "FOLDER": "outputs/talks",
    "outputs/demo_simulation": "outputs/talks",
    "outputs/loop_talks": "outputs/asking",
    "FILE": "IN3/train.jsonl",
    "DIR": "outputs/demo_sft",
    "outputs/study": "outputs/done",  # a study with answers
    "20000": "20",  # conversations to view
}
HOUSEKEEPING = r"\S*uv sync --locked|rm -rf( outputs/loop_\w+| outputs/corrections)+"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which all that the pages name is there, in small."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("configs", "docs"):
        (folder / name).symlink_to(ROOT / name)
    save_tiny_model(folder / "tiny")
    for name in ("my_chats.jsonl", "more.jsonl"):
        write_dataset(folder / name)
    (folder / "IN3").mkdir()
    rows = [{**row, "task": f"{row['task']} ({i})"} for row in IN3 for i in range(12)]
    (folder / "IN3/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = {**next(generate_rows()), "single_turn_metadata": {"kind": "bread"}, "turn_id": 1}
    (folder / "outputs/corrections").mkdir(parents=True)
    (folder / "outputs/corrections/train.jsonl").write_text(json.dumps(row) + "\n")
    config = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    small_sft = {**config, "max_steps": 1, "max_eval_pairs": 2, "report_to": "none"}
    (folder / "small_sft.yaml").write_text(json.dumps({**small_sft, "push_to_hub": "false"}))
    small_evaluation = {
        "tasks": "demo_development",
        "num_tasks": 2,
        "max_turns": 1,
        "max_new_tokens": 3,
    }
    (folder / "small_evaluation.yaml").write_text(json.dumps(small_evaluation))
    with contextlib.chdir(folder):
        small = SMALL["scripts/train_sft.py"].format(tiny="tiny").split()
        train_sft(["--config", "configs/demo.yaml", *small])
        for name in (
            "SFT_RUN",
            "demo-42",
            "sft-0",
            "nf4-0",
            "online-0",
            "online-1",
            "long-0",
            "corrected-0",
            "loop_sft",
            "loop_corrected",
            "demo_grpo",
        ):
            shutil.copytree("outputs/demo_sft", f"outputs/{name}")
        for name in ("talks", "chat", "RUN/conversations"):
            small = TALKING.format(tiny="tiny").split()
            simulate([*small, "--user", "sharded", "--output_dir", f"outputs/{name}"])
        with FakeServer(lambda body: "Which one?") as server:
            model = ["--assistant_base_url", server.url, "--assistant_model", "m"]
            few = ["--num_tasks", "2", "--max_turns", "2"]
            simulate([*few, *model, "--output_dir", "outputs/asking"])
    with hosted(folder / "outputs/done", make_study()) as (host, url):
        for code, number in host.codes.items():
            Participant(url, code, number, hasty=False).run()
    return folder


@pytest.fixture
def place(prepared, tmp_path, monkeypatch):
    """A copy of that folder, to work in."""
    folder = shutil.copytree(prepared, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(folder)
    # The tiny model ends no sentence, so that of a cut reply nothing would be kept.
    monkeypatch.setattr("collabllm.data_engine.grow.to_last_sentence", lambda text: text)
    return folder


@pytest.fixture
def servers():
    """Three servers of one model."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeServer(lambda body: "Which one?")) for _ in range(3)]


def in_small(words, servers):
    """Give a command's words with the files and servers of here, and made small."""
    name, *rest = words
    urls = iter(server.url for server in servers)
    rest = [FILES.get(word, word) for word in rest]
    rest = [re.sub(r"http://[\w.]+:\d+/v1", lambda _: next(urls), word) for word in rest]
    port = free_port()
    online = json.dumps(ONLINE, separators=(",", ":"))
    return (
        name,
        [*rest, *SMALL.get(name, "").format(tiny="tiny", port=port, online=online).split()],
        port,
    )


def call(name, words):
    """Run a script or a benchmark as the command line does."""
    old = sys.argv, sys.path
    sys.argv, sys.path = [str(ROOT / name), *words], [str((ROOT / name).parent), *sys.path]
    try:
        if name.startswith("scripts/"):
            runpy.run_path(str(ROOT / name))["main"](words)
        else:
            runpy.run_path(str(ROOT / name), run_name="__main__")
    finally:
        sys.argv, sys.path = old


def serve_and_interrupt(name, words, port):
    """Run a script that serves until Ctrl-C, and press that when it does."""
    process = subprocess.Popen([sys.executable, str(ROOT / name), *words])
    try:
        while process.poll() is None:
            time.sleep(0.05)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()


def run_in_small(words, servers):
    if "--ray" in words or any(word.startswith("ray-") for word in words):
        pytest.importorskip("ray")
    name, words, port = in_small(words, servers)
    if name in ("scripts/chat.py", "scripts/study.py") and "--help" not in words:
        serve_and_interrupt(name, words, port)
        return
    if "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            call(name, words)
    else:
        call(name, words)


def calls_of(kind):
    """Give each call once, whatever the pages that print it."""
    calls = [c for c in COMMANDS if re.match(kind, c.name) and c.name != "benchmarks/NAME.py"]
    once = {c.words: c for c in reversed(calls)}.values()
    return list({_sets_apart(c): c for c in once}.values())


def _sets_apart(command):
    """Give all of a command; of those in the history only script, configuration and flags."""
    if command.page != "history.md":
        return command.words
    flags = [word for word in command.words if word.startswith("--") or word.endswith(".yaml")]
    return (command.name, *sorted(set(flags)))


@pytest.mark.parametrize("command", calls_of("scripts/"), ids=lambda c: f"{c.page}: {c.line[:70]}")
def test_a_printed_call_of_a_script_runs(command, place, servers):
    run_in_small(command.words, servers)


@pytest.mark.parametrize("command", calls_of("benchmarks/"), ids=lambda c: f"{c.page}: {c.line}")
def test_a_printed_benchmark_runs(command, place, servers):
    run_in_small(command.words, servers)


@pytest.mark.parametrize("target", sorted({w for c in calls_of("make") for w in c.words[1:]}))
def test_what_make_runs_runs(target, place, servers):
    expanded = subprocess.run(
        ["make", "--no-print-directory", "-n", target, "UV=uv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in expanded.splitlines():
        found = re.match(r"uv run python (scripts/.*)", line)
        if found:
            run_in_small(found[1].split(), servers)
        elif not re.fullmatch(HOUSEKEEPING, line):
            assert f"make {target}" in (ROOT / ".github/workflows/ci.yml").read_text(), line


def test_all_other_commands_are_marked_or_run_here(place, monkeypatch, capsys):
    others = {c.words for c in COMMANDS if not c.is_marked and not re.match(r"\w+/|make", c.name)}
    modules = {words[2] for words in others if words[:2] == ("python", "-m")}

    assert {words for words in others if words[:2] != ("python", "-m")} == set()
    assert modules == {"collabllm", "compileall"}
    for module, words in (("collabllm", []), ("compileall", ["IN3"])):
        monkeypatch.setattr(sys, "argv", ["python", *words])
        with contextlib.suppress(SystemExit):
            runpy.run_module(module, run_name="__main__")
    assert "train_sft" in capsys.readouterr().out


def test_the_readme_says_what_the_mark_means():
    assert (
        f"marked {MARK} need a GPU, an account or the network" in (ROOT / "README.md").read_text()
    )
