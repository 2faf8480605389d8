"""A run killed at any step and resumed ends with the same adapter; processes share the work."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from collabllm.training import run
from collabllm.training.checkpoints import find_checkpoint
from collabllm.training.run import Run
from collabllm.training.sft import SFT
from scripts.train_sft import main

ROOT = Path(__file__).parents[2]
STEPS = 12


def start(
    flags: list[str], launcher: tuple[str, ...] = (), script: str = "scripts/train_sft.py"
) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, script, *flags]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 480
    while not list(run.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.02)


def assert_same_adapter(first: Path, second: Path) -> None:
    one, two = (load_file(run / "adapter_model.safetensors") for run in (first, second))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0)


@pytest.mark.parametrize("takes_best", [False, True])
def test_a_run_killed_after_its_last_step_takes_no_step_more(
    sft_flags, brief_model, tmp_path, takes_best
):
    settings = {"hf_model_path": brief_model, "max_steps": 2, "load_in_4bit": "false"}
    settings |= {"save_strategy": "steps", "save_steps": 1}
    if takes_best:  # the first, since the loss falls
        settings |= {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss"}
        settings |= {"load_best_model_at_end": "true", "greater_is_better": "true"}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    last = whole / "checkpoint-2"
    main(sft_flags(output_dir=whole, **settings))

    main(sft_flags(output_dir=resumed, resume_from_checkpoint=last, **settings))

    assert_same_adapter(whole, resumed)
    first, again = (json.loads((run / "metrics.json").read_text()) for run in (whole, resumed))
    assert [e["step"] for e in again["log_history"] if "loss" in e] == [1, 2]
    assert again["after"] == first["after"] != first["before"]
    assert (first["resumed_from"], again["resumed_from"]) == (None, str(last))
    if takes_best:
        assert_same_adapter(whole, whole / "checkpoint-1")
    main(sft_flags(output_dir=resumed, resume_from_checkpoint=last, **settings | {"max_steps": 3}))
    assert json.loads((resumed / "metrics.json").read_text())["log_history"][-1]["step"] == 3


def test_half_an_epoch_is_over_on_resume_and_only_the_first_process_reports(
    sft_flags, brief_model, tmp_path, monkeypatch
):
    settings = {"hf_model_path": brief_model, "load_in_4bit": "false", "batch_size": 4}
    settings |= {"max_steps": None, "num_train_epochs": 0.5, "eval_ratio": 0}
    settings |= {"save_strategy": "steps", "save_steps": 1}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    main(sft_flags(output_dir=whole, **settings))
    last = Path(find_checkpoint("true", whole))
    state = json.loads((last / "trainer_state.json").read_text())
    state["is_world_process_zero"] = False  # of another process than the one that resumes
    state["best_model_checkpoint"] = str(tmp_path / "gone")
    (last / "trainer_state.json").write_text(json.dumps(state))
    states = []
    leave = run.leave_results
    monkeypatch.setattr(run, "leave_results", lambda *a: (states.append(a[0].state), leave(*a)))

    main(sft_flags(output_dir=resumed, resume_from_checkpoint=last, **settings))

    assert state["max_steps"] > 1
    assert_same_adapter(whole, resumed)
    assert states[0].global_step == state["global_step"]
    assert states[0].is_world_process_zero
    assert json.loads((resumed / "metrics.json").read_text())["best_checkpoint"] is None


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_and_resumed_run_ends_with_the_same_adapter(sft_flags, tmp_path, kill):
    settings = {
        "max_steps": STEPS,
        "save_strategy": "steps",
        "save_steps": 2 if kill == signal.SIGKILL else 1,
        "eval_strategy": "steps",
        "eval_steps": 3,
    }
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    main(sft_flags(output_dir=unbroken, **settings))

    process = start(sft_flags(output_dir=broken, **settings))
    wait_for_checkpoint(broken, process)
    os.kill(process.pid, kill)
    output = process.communicate()[0]

    statuses = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == statuses[kill], output
    assert not (broken / "adapter_model.safetensors").exists()
    assert "Traceback" not in output
    if kill == signal.SIGKILL:
        main(sft_flags(output_dir=broken, resume_from_checkpoint="auto", **settings))
    else:
        main(command_that_goes_on(output))
    assert_same_adapter(unbroken, broken)


def command_that_goes_on(output: str) -> list[str]:
    """Read the last command that a stopped run has printed; return its flags."""
    command = output.split("Go on with: ")[-1].splitlines()[0]
    python, script, *flags = shlex.split(command)
    assert (python, script) == (sys.executable, "scripts/train_sft.py")
    return flags


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_with_twice_the_batch(sft_flags, tmp_path):
    settings = {"lora_dropout": 0, "max_steps": 3}
    main(sft_flags(output_dir=tmp_path / "one", batch_size=4, **settings))

    process = start(
        sft_flags(output_dir=tmp_path / "two", batch_size=2, ddp_backend="gloo", **settings),
        ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    )
    output = process.communicate(timeout=540)[0]

    assert process.returncode == 0, output
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")
    )
    losses = [
        [entry["loss"] for entry in run["log_history"] if "loss" in entry] for run in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert two["before"] == pytest.approx(one["before"], rel=1e-4)
    assert two["after"] == pytest.approx(one["after"], rel=1e-3)


@pytest.mark.slow
def test_two_processes_share_the_references_log_probs_and_stop_together(sft_flags, tmp_path):
    """TRL caches them beside the data, which all processes read from one place."""
    settings = {"learning_rate": 1e-3, "precompute_ref_log_probs": "true", "batch_size": 2}
    flags = sft_flags(ddp_backend="gloo", max_steps=200, **settings)
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    process = start(flags, command, "scripts/train_dpo.py")
    wait_for_output(process, "'loss'")
    (child, *_) = children_of(process.pid)

    os.kill(child, signal.SIGTERM)
    output = process.communicate(timeout=540)[0]

    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert "--resume_from_checkpoint true" in output
    assert (checkpoint / "trainer_state.json").is_file()


def wait_for_output(process: subprocess.Popen[str], text: str) -> None:
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    pytest.fail("".join(seen))


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_second_ctrl_c_kills():
    code = """
import os, signal, time
from collabllm.cli import run_script
from collabllm.training.callbacks import SaveOnStop

def main():
    SaveOnStop().on_train_begin()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

run_script(main)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)

    assert ended.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("method", "flags", "kept"),
    [
        ("load_model", {}, "there is no checkpoint yet; the same command starts again"),
        ("score", {}, "there is no checkpoint yet"),
        ("score after", {}, "the trained adapter is kept in .*run; only its evaluation"),
        ("score after", {"save_strategy": "steps"}, "checkpoint-4 is kept. Go on with"),
    ],
)
def test_ctrl_c_beside_the_steps_says_what_is_kept(
    sft_flags, tmp_path, monkeypatch, method, flags, kept
):
    def press(self, trainer=None, data=None):
        if "after" in method and trainer.state.global_step == 0:
            return {}
        raise KeyboardInterrupt

    owner = Run if method == "load_model" else SFT
    monkeypatch.setattr(owner, method.split()[0], press)
    with pytest.raises(KeyboardInterrupt, match=f"Interrupted: .*{kept}"):
        main(sft_flags(**flags))

    monkeypatch.undo()
    goes_on = {"resume_from_checkpoint": "true"} if "Go on" in kept else {}
    main(sft_flags(overwrite_output_dir=not goes_on or None, **flags, **goes_on))
    assert (tmp_path / "run/metrics.json").is_file()


def test_ctrl_c_during_an_evaluation_takes_no_further_step(sft_flags, tmp_path, monkeypatch):
    from trl import SFTTrainer

    loop = SFTTrainer.evaluation_loop

    def press(self, *args, **kwargs):
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loop(self, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "evaluation_loop", press)
    with pytest.raises(KeyboardInterrupt, match="checkpoint-2 is kept"):
        main(sft_flags(eval_strategy="steps", eval_steps=2, max_steps=6))


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(sft_flags, tmp_path, monkeypatch):
    from trl import SFTTrainer

    step = SFTTrainer.training_step

    def press(self, *args, **kwargs):
        if self.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", press)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"checkpoint-2 is kept\. Go on with .*'true'"):
        main(sft_flags(max_steps=5))

    assert (tmp_path / "run/checkpoint-2/trainer_state.json").is_file()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_incomplete_checkpoint_is_passed_over(tmp_path, caplog):
    for step in (2, 10, 12, 14):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text("{}")
    # As a kill leaves it between the file's opening and its writing.
    (tmp_path / "checkpoint-14/trainer_state.json").touch()

    assert find_checkpoint("true", str(tmp_path)) == str(tmp_path / "checkpoint-10")
    assert "checkpoint-12 is incomplete" in caplog.text
    assert "checkpoint-14 is incomplete" in caplog.text
    assert find_checkpoint(None, str(tmp_path)) is None
    assert find_checkpoint("false", str(tmp_path)) is None


def test_resuming_from_nothing_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in .*--output_dir"):
        find_checkpoint("true", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        find_checkpoint(str(tmp_path / "checkpoint-1"), str(tmp_path))
    (tmp_path / "trainer_state.json").write_text('{"epoch": 0.')  # half written
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        find_checkpoint(str(tmp_path), str(tmp_path))
