import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collabllm.cli import go_on_with, larger_run, run_script
from collabllm.errors import IncompleteRunError
from collabllm.settings import load_config

ROOT = Path(__file__).parents[1]


def status_of(error: BaseException | None) -> int | None:
    def main() -> None:
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    return ended.value.code


def status_of_call(call) -> int | None:
    with pytest.raises(SystemExit) as ended:
        run_script(call)
    return ended.value.code


def test_each_ending_has_its_exit_status_and_its_sentence_alone(capsys, monkeypatch):
    monkeypatch.setattr("collabllm.cli.os._exit", sys.exit)
    assert status_of(None) == 0
    assert status_of(IncompleteRunError("3 of 4 are done; go on with --resume.")) == 1
    assert status_of(FileNotFoundError("x.jsonl: there is no such file.")) == 2
    assert status_of(KeyboardInterrupt("7 conversations are kept.")) == 130
    text = capsys.readouterr().err
    assert "3 of 4 are done; go on with --resume." in text
    assert "x.jsonl: there is no such file." in text
    assert "7 conversations are kept." in text
    assert "Traceback" not in text


def test_a_value_error_of_ours_is_a_sentence_and_one_of_a_library_a_fault(capsys, tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("- a\n")

    with pytest.raises(SystemExit) as ended:
        run_script(lambda: load_config(file) and None)

    assert ended.value.code == 2
    assert "must map names to values" in capsys.readouterr().err
    with pytest.raises(ValueError, match="invalid literal"):
        run_script(lambda: int("x") and None)
    assert status_of(ImportError("Please install it with `pip install liger-kernel`")) == 2
    assert "`pip install liger-kernel`" in capsys.readouterr().err
    with pytest.raises(ImportError, match="cannot import"):
        run_script(lambda: exec("from math import no_such_name"))


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_sft.py", "--debug"])

    def main() -> None:
        raise FileNotFoundError("x.jsonl")

    with pytest.raises(FileNotFoundError):
        run_script(main)


def test_ctrl_c_ends_a_process_with_130():
    code = (
        "import time\nfrom collabllm.cli import run_script\n"
        "run_script(lambda: (print('up', flush=True), time.sleep(60)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)

    _, text = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in text


def said_by(words: str, monkeypatch) -> str:
    monkeypatch.setattr(sys, "argv", words.split())
    said: list[str] = []
    with pytest.raises(SystemExit):
        run_script(
            lambda: said.append(go_on_with(output_dir="a run", resume_from_checkpoint="true"))
        )
    return said[0]


def test_the_command_that_goes_on_replaces_what_was_given(monkeypatch):
    words = "train.py --output-dir=old --push_to_hub true --resume_from_checkpoint auto --lora_r 4"
    command = (
        f"Go on with: {sys.executable} train.py --push_to_hub true --lora_r 4 --output_dir 'a run' "
        "--resume_from_checkpoint true"
    )

    assert said_by(words, monkeypatch) == command
    assert said_by(f"{words} --hub_token hf_x", monkeypatch) == (
        f"{command}\n(and --hub_token as before)"
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert said_by(words, monkeypatch) == (
        "Go on with the same launch command, with --output_dir 'a run' "
        "--resume_from_checkpoint true"
    )
    assert go_on_with(resume=True) == "Go on with the same call and resume=True."
    with larger_run():
        assert go_on_with(resume=True) == "Go on with the same call."


def run_module(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collabllm", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_module_lists_every_script_and_runs_one():
    listing = run_module()
    names = [path.stem for path in (ROOT / "scripts").glob("*.py")]

    assert listing.returncode == 0
    assert all(f"  {name} " in listing.stdout for name in names)
    assert run_module("no_such_script").returncode == 2
    helped = run_module("view", "--help")
    assert helped.returncode == 0
    assert "transcript" in helped.stdout


def test_every_script_ends_with_the_shared_wrapper():
    for path in (ROOT / "scripts").glob("*.py"):
        assert path.read_text().rstrip().endswith("run_script(main)"), path.name


def test_what_the_system_says_of_a_file_is_a_sentence(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()

    assert status_of_call(lambda: (file / "folder").mkdir()) == 2
    assert status_of_call(file.mkdir) == 2
    assert status_of_call((tmp_path / "none").read_text) == 2
    text = capsys.readouterr().err
    assert text.count("a file stands where a folder is needed; choose another name.") == 2
    assert f"{tmp_path}/none: no such file or directory." in text
    assert "Errno" not in text
