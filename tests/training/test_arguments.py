"""Flags: defaults, YAML files, precedence, wrong names and values, and the Python API."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest
import trl
from trl import ModelConfig, SFTConfig

from collabllm.settings import plain_error
from collabllm.training.command_line import trainer_field_names
from collabllm.training.settings import DPOSettings, ModelSettings, SFTSettings
from collabllm.training.trainer_config import check_trainer_fields, read_trainer_fields
from scripts.train_sft import main, parse_args


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("batch_size: 2\nlearning_rate: 1.0e-3\nmax_steps: 7\nload_in_4bit: false\n")

    settings, rest = parse_args(["--config", str(file), "--batch-size", "8", "--max_steps", "9"])

    assert (settings.batch_size, settings.learning_rate, settings.load_in_4bit) == (8, 1e-3, False)
    assert read_trainer_fields(SFTConfig, rest) == {"max_steps": 9}
    assert settings.max_length == 4096


def test_the_documented_defaults():
    settings, rest = parse_args([])

    assert (settings.batch_size, settings.max_length, rest) == (4, 4096, {})
    assert settings.learning_rate == 2e-4
    assert (settings.lora_r, settings.lora_alpha, settings.lora_dropout) == (16, 16, 0.1)
    assert (settings.turns, settings.push_to_hub, settings.load_in_4bit) == ("merged", "auto", True)
    assert settings.lower_bound_metric is None


def test_trainer_fields_are_read_by_their_types_wherever_they_come_from():
    words = "--report_to none --save_strategy no --packing --max_steps 3 --eval_steps 0.5".split()

    _, rest = parse_args(words)

    assert read_trainer_fields(SFTConfig, rest) == {
        "report_to": "none",
        "save_strategy": "no",
        "packing": True,
        "max_steps": 3,
        "eval_steps": 0.5,
    }
    given = {"max_steps": 3, "packing": True, "bf16": True, "dataset_kwargs": {"a": 1}}
    assert read_trainer_fields(SFTConfig, given) == given


def test_switches_of_trl_read_on_and_off_too():
    given = {"packing": "on", "bf16": "off"}

    assert read_trainer_fields(SFTConfig, given) == {"packing": True, "bf16": False}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("num_train_epochs", "two", "--num_train_epochs must be a number, got 'two'"),
        ("max_steps", True, "--max_steps: expected one argument"),
        ("lr_scheduler_type", "linaer", "--lr_scheduler_type"),
    ],
)
def test_a_wrong_value_of_the_trainer_is_one_line(name, value, says):
    with pytest.raises(ValueError) as error:
        read_trainer_fields(SFTConfig, {name: value})

    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_lr_hints_at_the_learning_rate():
    with pytest.raises(ValueError, match="--lr is not known; did you mean .*--learning_rate"):
        check_trainer_fields(SFTConfig, {"lr": "1e-4"}, {"learning_rate": 0})
    assert plain_error("--lr is not known; did you mean --lora_r?").endswith("_r?")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("batch_size", 0, "at least 1"),
        ("lora_r", 0, "at least 1"),
        ("lora_dropout", 1.0, "in"),
        ("eval_ratio", 1.5, "in"),
        ("learning_rate", -1.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("dataset_weights", [float("nan")], "one number above 0"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_loads(name, value, rule):
    with pytest.raises(ValueError, match=f"{name} must be {rule}.*got {re.escape(str(value))}"):
        SFTSettings(**{name: value})


def test_our_names_of_model_settings_are_those_of_trl():
    ours = set(ModelSettings.__dataclass_fields__)

    assert ours - set(ModelConfig.__dataclass_fields__) == {"hf_model_path", "lora_path"}


def test_methods_differ_in_what_they_add_and_in_the_learning_rate():
    assert DPOSettings().learning_rate == 5e-6
    assert not hasattr(SFTSettings(), "min_score_gap")


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_the_names_that_are_read_from_source_are_those_of_the_config(method):
    config = getattr(trl, f"{method.upper()}Config")

    assert trainer_field_names(method) == {f.name for f in fields(config) if f.init}


SAYS = {
    "--help": "--hf_dataset_path",
    "--lerning_rate 1": "--lerning_rate is not known; did you mean --learning_rate",
    "--num_epochs 1": "did you mean --num_train_epochs",
    "--no_bf17": "--no_bf17 is not known",
    "--batch_size two": "--batch_size must be a whole number, got 'two'.",
    "--dtype bf16": "--dtype must be one of 'auto', 'bfloat16', 'float16', 'float32', got",
}
PARSE_EACH = """
import sys
from scripts.train_sft import parse_args
for words in sys.argv[1:]:
    try:
        parse_args(words.split())
    except SystemExit as end:
        print("ends with", end.code, flush=True)
assert "torch" not in sys.modules
"""


def test_flags_are_checked_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", PARSE_EACH, *SAYS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )

    outputs = re.split(r"ends with (\d)\n", done.stdout)
    assert outputs[1::2] == ["0", "2", "2", "2", "2", "2"]
    for output, says in zip(outputs[::2], SAYS.values(), strict=False):
        assert says in output


def test_a_tracker_that_is_none_and_an_output_folder_that_is_a_file_end_in_a_sentence(
    sft_flags, tmp_path
):
    with pytest.raises(ValueError, match="--report_to wandbb: there is no such tracker; known"):
        main(sft_flags(report_to="wandbb"))
    (tmp_path / "text").touch()
    with pytest.raises(NotADirectoryError, match="--output_dir .*text is a file"):
        main(sft_flags(output_dir=tmp_path / "text"))
