"""Ctrl-C, wrong flags and dead servers, as a person at a terminal meets them."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fake_server import FakeServer, user_json

ROOT = Path(__file__).parents[2]


def start(script, *words):
    return subprocess.Popen(
        [sys.executable, f"scripts/{script}.py", *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def interrupt_when(process, file, num_lines):
    deadline = time.monotonic() + 300
    while not file.is_file() or file.read_text().count("\n") < num_lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    return process.communicate(timeout=60)


@pytest.mark.parametrize("script", ["simulate_chats", "build_dataset"])
def test_ctrl_c_says_what_is_kept_and_the_command_that_goes_on(script, tmp_path):
    lines = 3
    file = tmp_path / ("transcripts.jsonl" if script == "simulate_chats" else "train.jsonl")
    with FakeServer(lambda body: user_json("hm"), delay_s=0.2) as server:
        words = f"--assistant_model a --assistant_base_url {server.url} --concurrency 2"
        words += f" --max_turns 1 --output_dir {tmp_path}"
        if script == "build_dataset":
            words += " --window 0 --weights '{\"repetition\": 1}'"
        process = start(script, *shlex.split(words))
        _, text = interrupt_when(process, file, lines)

    last = text.strip().splitlines()[-1]
    assert process.returncode == 130
    assert "Traceback" not in text
    assert last.startswith("Interrupted: ")
    assert f"are kept in {file}" in last
    given = shlex.join(shlex.split(words))
    assert last.endswith(f"Go on with: {sys.executable} scripts/{script}.py {given} --resume")


def test_a_server_that_refuses_the_key_ends_the_run_at_once(tmp_path):
    with FakeServer(lambda body: "") as server:
        server.reject = lambda body: (401, {"error": {"message": "no such key"}})
        words = f"--assistant_model a --assistant_base_url {server.url} --output_dir {tmp_path}"
        process = start("simulate_chats", *words.split())
        _, text = process.communicate(timeout=300)

    assert process.returncode == 2
    assert "refused the request (401" in text
    assert "Traceback" not in text


def test_conversations_that_failed_are_no_success(tmp_path):
    refusal = (401, {"error": {"message": "no such key"}})
    with FakeServer(lambda body: "fine") as server:
        server.reject = lambda body: None if body["max_tokens"] == 16 else refusal  # 16: preflight
        words = f"--assistant_model a --assistant_base_url {server.url} --output_dir {tmp_path}"
        process = start("simulate_chats", *words.split(), "--num_tasks", 2)
        _, text = process.communicate(timeout=300)

    assert process.returncode == 1
    assert "Of 2 conversations 2 ended as server_error" in text
    assert "--resume" in text
