"""The table of attacks of docs/sandbox.md: tier by tier, what a program tries and what holds."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from collabllm.rewards.sandbox import process as process_module
from collabllm.rewards.sandbox.bubblewrap import BUBBLEWRAP
from collabllm.rewards.sandbox.run import run_program
from collabllm.rewards.sandbox.tier import Limits
from tests.rewards.sandbox.attacks import ATTACKS, LEFT_BEHIND, LIMITED

SMALL = Limits(wall_s=4, cpu_s=2, memory_bytes=2**28)
PATIENT = replace(SMALL, wall_s=60)  # for programs that end by themselves, on a machine under load


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Lay out what must not be reached; the folder is open to everybody by its modes."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (tmp_path / "secret").write_text("key")
    (tmp_path / "secret").chmod(0o640)
    (tmp_path / "open").write_text("")
    (tmp_path / "open").chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(0o755)
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(tmp_path / "door"))
    (tmp_path / "door").chmod(0o777)
    door.listen()
    letterbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    letterbox.bind(str(tmp_path / "letterbox"))
    (tmp_path / "letterbox").chmod(0o777)
    port = socket.create_server(("127.0.0.1", 0))
    victim = subprocess.Popen(["/bin/sleep", "60"])
    yield {"outside": str(tmp_path), "port": port.getsockname()[1], "victim": victim.pid}
    victim.kill()
    victim.wait()
    door.close()
    letterbox.close()
    port.close()


def _fill(program, outside):
    for name, value in outside.items():
        program = program.replace(f"{{{name}}}", str(value))
    return program


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_an_attack_does_not_get_through(attack, every_tier, outside):
    if every_tier.name == "unsafe" and attack.open_if_unsafe:
        pytest.skip("the tier 'unsafe' does not stop this, and docs/sandbox.md says so")
    if attack.needs_own_id and os.geteuid() != os.getuid() and every_tier.name == "landlock":
        pytest.skip("root that plays a user keeps its capabilities")
    folder = Path(outside["outside"])
    before = {path.name: _about(path) for path in folder.iterdir()}

    result = run_program(_fill(attack.program, outside), PATIENT, tier=every_tier)

    pretended = "change" in attack.name  # nothing is done, and success reported
    assert "BREACH" not in result.output or pretended
    assert result.finished, result.output
    assert {path.name: _about(path) for path in folder.iterdir()} == before
    os.kill(outside["victim"], 0)
    assert Path(f"/proc/{outside['victim']}/stat").read_text().split()[2] != "Z"


def _about(path):
    stat = path.stat()
    named = os.listxattr(path) if path.is_file() else []
    return named, stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, stat.st_nlink


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("memory", ["cgroup", "watched"])
def test_a_limit_ends_it(name, memory, tier, monkeypatch, tmp_path):
    if memory == "watched":
        if "memory" not in name:
            pytest.skip("only memory is limited by groups")
        monkeypatch.setattr(process_module, "make_group", lambda limits: None)
    elif "memory" in name and process_module.make_group(SMALL) is None:
        pytest.skip("this machine gives no control group")
    endless = any(word in name for word in ("for ever", "in C", "output"))
    limits = replace(SMALL, wall_s=3, cpu_s=1) if endless else replace(SMALL, wall_s=30)
    before = os.statvfs(tmp_path)

    result = run_program(LIMITED[name], limits, tier=tier)

    assert not result.finished
    assert len(result.output) < 10_000
    after = os.statvfs(tmp_path)
    assert (before.f_bavail - after.f_bavail) * after.f_frsize < 500e6
    assert endless or not result.timed_out


def test_folders_in_folders_are_removed_at_any_depth(every_tier, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')"

    run_program(deep, PATIENT, tier=every_tier)

    assert list(tmp_path.iterdir()) == []


def test_pairs_of_sockets_that_stay_connected_work(tier):
    pair = "import socket\na, b = socket.socketpair()\na.send(b'x')\nprint(b.recv(1))"

    assert run_program(pair, PATIENT, tier=tier).output == "b'x'"


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_no_process_is_left_behind(name, every_tier):
    if os.geteuid() != os.getuid() and name == "a fork bomb":
        pytest.skip("root that plays a user has no limit on processes")
    # Forks that fail make room for others, so that a bomb may go on until it is ended.
    run_program(LEFT_BEHIND[name], SMALL if "bomb" in name else PATIENT, tier=every_tier)

    deadline = time.monotonic() + 60  # the whole machine's: other tests' programs end by then
    while _left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _left() == []


def test_a_sandbox_that_is_ended_while_it_starts_leaves_no_process():
    def command(limits, readable):  # bwrap's child while it sets up: it does not end with bwrap
        return ["/bin/sh", "-c", "sleep 60 & wait"]

    slow = replace(BUBBLEWRAP, command=command)
    with process_module.Process(slow, "program", {"program": "pass"}, SMALL) as process:
        group = str(process.popen.pid)
        while len(_members(group)) < 2:
            time.sleep(0.01)

    deadline = time.monotonic() + 5
    while _members(group) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _members(group) == []


def _members(group):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            found += [path] if its_group == group and state != "Z" else []
    return found


def _left():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if b"program.py" in line and b"\0-I\0" in line:
            found.append(line)
    return found


def test_the_documentation_names_every_attack():
    page = Path(__file__).parents[3].joinpath("docs/sandbox.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")}

    names = {attack.name for attack in ATTACKS} | LIMITED.keys() | LEFT_BEHIND.keys()
    assert names <= rows
    opened = {line.split("|")[1].strip() for line in page.splitlines() if "**open**" in line}
    assert opened == {attack.name for attack in ATTACKS if attack.open_if_unsafe}
