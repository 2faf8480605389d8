"""The cluster files start what they say: run here with `echo` in the place of the launcher."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from collabllm.data_engine.settings import BuildSettings
from collabllm.settings import parse_settings
from scripts import train_sft
from tests.training.conftest import save_tiny_model

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "cluster"


def bash(script, *words, **environment):
    """Run a script as Slurm or SkyPilot would, and return the words of the command it starts."""
    done = subprocess.run(
        ["bash", "-c", script, "job", *words],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def launched(words):
    """Return accelerate's arguments and the settings of the training script behind it."""
    start = words.index("launch") + 1
    arguments = launch_command_parser().parse_args(words[start:])
    assert arguments.training_script == "scripts/train_sft.py"
    assert Path(ROOT, arguments.config_file).is_file()
    train_sft.parse_args(arguments.training_script_args)
    return arguments


@pytest.mark.parametrize("rank", [0, 1])
def test_slurm_starts_training_on_each_node(rank):
    words = bash(
        (FOLDER / "train.sbatch").read_text(),
        *"--config configs/gpu/sft_8b.yaml --hf_dataset_path d --output_name_tag t".split(),
        RUN="echo",
        SRUN="env",
        SLURM_JOB_NUM_NODES="2",
        SLURM_NODEID=str(rank),
        MASTER_ADDRESS="node1",
    )
    arguments = launched(words)

    assert (arguments.num_machines, arguments.num_processes) == (2, 16)
    assert (arguments.machine_rank, arguments.main_process_ip) == (rank, "node1")


@pytest.mark.skipif("COLLABLLM_TWO_RANKS" not in os.environ, reason="takes a minute")
def test_the_slurm_file_trains_two_ranks_of_this_machine(tmp_path):
    words = "--config configs/demo.yaml --max_steps 4 --max_eval_pairs 2"
    flags = [*words.split(), "--hf_model_path", str(save_tiny_model(tmp_path / "tiny"))]
    flags += ["--output_dir", str(tmp_path / "run")]
    job = {"RUN": "uv run", "SRUN": "env", "MASTER_ADDRESS": "127.0.0.1", "WANDB_MODE": "offline"}
    job |= {"SLURM_JOB_NUM_NODES": "2", "GPUS_PER_NODE": "1"}
    ranks = [
        subprocess.Popen(
            ["bash", FOLDER / "train.sbatch", *flags],
            env={**os.environ, **job, "SLURM_NODEID": str(rank)},
            cwd=ROOT,
        )
        for rank in range(2)
    ]

    assert [rank.wait(600) for rank in ranks] == [0, 0]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    rows = metrics["train"]["epoch"] * metrics["data"]["training rows"]
    assert round(rows) == 4 * 2 * 2  # steps, rows a step and rank, ranks


def test_skypilot_starts_training_on_each_node():
    task = yaml.safe_load((FOLDER / "train.sky.yaml").read_text())
    words = bash(
        'uv() { echo "$@"; }\n' + task["run"],
        **task["envs"],
        SKYPILOT_NUM_NODES="2",
        SKYPILOT_NUM_GPUS_PER_NODE="8",
        SKYPILOT_NODE_RANK="1",
        SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2",
    )
    arguments = launched(words)

    assert task["num_nodes"] == arguments.num_machines == 2
    assert (arguments.machine_rank, arguments.main_process_ip) == (1, "10.0.0.1")


def test_slurm_builds_each_part_in_a_folder_of_its_own():
    folders = set()
    for part in ("1", "2", "3"):
        words = bash(
            (FOLDER / "build.sbatch").read_text(),
            "--config",
            "configs/demo_build.yaml",
            RUN="echo",
            SLURM_ARRAY_TASK_ID=part,
            SLURM_ARRAY_TASK_COUNT="3",
        )
        settings = parse_settings(BuildSettings, words[1:])
        assert (settings.shard, settings.resume) == (f"{part}/3", True)
        folders.add(settings.output_dir)
    assert len(folders) == 3


def test_skypilot_builds_a_part():
    task = yaml.safe_load((FOLDER / "build.sky.yaml").read_text())
    words = bash('uv() { echo "$@"; }\n' + task["run"], **task["envs"])

    settings = parse_settings(BuildSettings, words[words.index("scripts/build_dataset.py") + 1 :])
    assert (settings.shard, settings.output_dir) == ("1/4", "/parts/part1")
