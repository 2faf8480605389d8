"""Model-written code cannot do harm, and passes only when its tests do."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from collabllm.rewards import MetricTools
from collabllm.rewards.registry import score_conversation
from collabllm.rewards.sandbox import run as sandbox_module
from collabllm.rewards.sandbox.run import (
    Limits,
    SandboxUnavailableError,
    isolation_error,
    run_program,
)
from collabllm.tasks import Task

QUICK = Limits(wall_s=8, cpu_s=2)
isolated = pytest.mark.skipif(
    isolation_error() is not None, reason="this system cannot isolate programs"
)


def pass_rate(reply, test, **metadata):
    task = Task("t", "goal", metadata={"test": test, **metadata})
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": reply}]
    values = asyncio.run(score_conversation(talk, task, ["pass_rate"], MetricTools()))
    return values["pass_rate"]


@isolated
def test_an_ordinary_program_ends_well_and_libraries_work():
    result = run_program("import numpy\nprint(int(numpy.ones(4).sum()))")

    assert (result.finished, result.output) == (True, "4")


@isolated
def test_an_early_exit_is_not_success():
    assert not run_program("import sys\nsys.exit(0)").finished


@isolated
def test_a_fork_bomb_is_stopped_and_leaves_no_process():
    result = run_program("import os, time\nwhile True:\n    os.fork()", QUICK)

    assert not result.finished
    time.sleep(0.2)
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"program.py" in _read(p)]
    assert left == []


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@isolated
@pytest.mark.parametrize(
    "program",
    ["while True: pass", "import time\ntime.sleep(100)", "x = 10 ** 10 ** 10"],
    ids=["busy", "asleep", "inside C"],
)
def test_an_endless_program_is_ended(program):
    assert not run_program(program, Limits(wall_s=3, cpu_s=2)).finished


@isolated
@pytest.mark.parametrize(
    "program",
    [
        "chunk = 'x' * 10**6\nfor _ in range(10**4): print(chunk)",
        "data = b'x' * 10**7\nopen('f', 'wb').write(data)",
        "for i in range(2000): open(f'f{i}', 'wb').write(b'x' * 5 * 10**6)",
    ],
    ids=["printed", "one file", "many files"],
)
def test_ten_gigabytes_of_output_do_not_fill_the_disk(program, tmp_path):
    before = _free_bytes(tmp_path)

    result = run_program(program, QUICK)

    assert not result.finished
    assert before - _free_bytes(tmp_path) < 500e6


def _free_bytes(folder):
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


@isolated
def test_memory_is_limited():
    assert "MemoryError" in run_program("x = bytearray(10**11)", QUICK).output


@isolated
def test_nothing_outside_the_folder_is_written_or_read(tmp_path):
    (tmp_path / "secret").write_text("key")

    write = run_program(f"open({str(tmp_path / 'evil')!r}, 'w').write('x')", QUICK)
    read = run_program(f"print(open({str(tmp_path / 'secret')!r}).read())", QUICK)

    assert "PermissionError" in write.output
    assert "PermissionError" in read.output
    assert not (tmp_path / "evil").exists()


@isolated
def test_there_is_no_network_and_no_inherited_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    network = run_program("import socket\nsocket.create_connection(('127.0.0.1', 22), 2)", QUICK)
    environment = run_program("import os\nprint(dict(os.environ))", QUICK)

    assert "unreachable" in network.output
    assert "sk-secret" not in environment.output
    assert environment.finished


def test_without_isolation_it_refuses_unless_the_user_insists(monkeypatch):
    monkeypatch.setattr(sandbox_module, "isolation_error", lambda: "no namespaces here")

    with pytest.raises(SandboxUnavailableError, match=r"no namespaces here.*--allow_unsafe_code"):
        run_program("print(1)")
    assert run_program("print(1)", allow_unsafe=True).output == "1"
    assert not run_program("while True: pass", Limits(3, 1), allow_unsafe=True).finished


@isolated
def test_pass_rate_runs_statements_functions_and_unittest_classes():
    good, bad = "```python\ndef f(x):\n    return x + 1\n```", "```\ndef f(x):\n    return x\n```"
    unittest_class = (
        "import unittest\nclass TestCases(unittest.TestCase):\n"
        "    def test_one(self):\n        self.assertEqual(f(1), 2)\n"
    )
    check = "def check(candidate):\n    assert candidate(1) == 2"

    assert pass_rate(good, "assert f(1) == 2").value == 1.0
    assert pass_rate(bad, "assert f(1) == 2").value == 0.0
    assert pass_rate(good, unittest_class).value == 1.0
    assert pass_rate(bad, unittest_class).value == 0.0
    assert pass_rate(good, check, entry_point="f").value == 1.0
    assert pass_rate("not code at all", "assert f(1) == 2").value == 0.0


def test_pass_rate_without_tests_does_not_apply():
    value = pass_rate("```\nx = 1\n```", "")

    assert (value.value, value.applicable) == (None, False)
