"""Flags: defaults, YAML files, precedence, wrong names and values, and the Python API."""

import subprocess
import sys

import pytest
from trl import ModelConfig, SFTConfig

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
    given = {"max_steps": 3, "packing": True, "dataset_kwargs": {"a": 1}}
    assert read_trainer_fields(SFTConfig, given) == given


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("num_train_epochs", "two", "--num_train_epochs: invalid float value: 'two'"),
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


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("batch_size", 0, "at least 1"),
        ("lora_r", 0, "at least 1"),
        ("lora_dropout", 1.0, "in"),
        ("eval_ratio", 1.5, "in"),
        ("learning_rate", -1.0, "above 0"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_loads(name, value, rule):
    with pytest.raises(ValueError, match=f"{name} must be {rule}.*got {value}"):
        SFTSettings(**{name: value})


def test_our_names_of_model_settings_are_those_of_trl():
    ours = set(ModelSettings.__dataclass_fields__)

    assert ours - set(ModelConfig.__dataclass_fields__) == {"hf_model_path", "lora_path"}


def test_methods_differ_in_what_they_add_and_in_the_learning_rate():
    assert DPOSettings().learning_rate == 5e-6
    assert not hasattr(SFTSettings(), "min_score_gap")


def test_a_wrong_flag_of_the_script_ends_in_its_sentence(sft_flags):
    with pytest.raises(ValueError, match="--lerning_rate is not known; did you mean --learning_r"):
        main([*sft_flags(), "--lerning_rate", "1"])


def test_help_answers_without_torch():
    code = (
        "import sys; from scripts.train_sft import parse_args\n"
        "try: parse_args(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "--hf_dataset_path" in done.stdout
