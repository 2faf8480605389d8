"""Flags: defaults, YAML files, precedence, unknown names."""

import subprocess
import sys

import pytest
import yaml

from collabllm.flags import read_flags


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(parse, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("batch_size: 2\nlearning_rate: 1.0e-3\nmax_steps: 7\nno_4bit: true\n")

    args = parse(["--config", str(file), "--batch_size", "8", "--max_steps", "9"])

    assert (args.batch_size, args.learning_rate, args.no_4bit) == (8, 1e-3, True)
    assert read_flags(args.trainer_args) == {"max_steps": 9}
    assert args.max_length == 4096


def test_the_documented_defaults(parse):
    args = parse([])

    assert (args.learning_rate, args.batch_size, args.max_length) == (2e-5, 4, 4096)
    assert (args.lora_r, args.lora_alpha, args.lora_dropout) == (16, 16, 0.1)
    assert (args.turns, args.push_to_hub, args.no_4bit) == ("merged", "auto", False)


def test_flags_survive_the_way_through_a_file(parse, tmp_path):
    words = ["--report_to", "none", "--save_strategy", "no", "--packing", "--fsdp", "a", "b"]
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(read_flags(words)))

    args = parse(["--config", str(file)])

    assert read_flags(args.trainer_args) == {
        "report_to": "none",
        "save_strategy": "no",
        "packing": "true",
        "fsdp": ["a", "b"],
    }


@pytest.mark.parametrize("text", ["- a\n", "a: [", "config: other.yaml\n"])
def test_a_bad_config_file_is_refused(parse, tmp_path, capsys, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)

    with pytest.raises(SystemExit):
        parse(["--config", str(file)])

    assert "c.yaml" in capsys.readouterr().err or "config" in text


def test_parsing_leaves_its_argument_alone(parse):
    argv = ["--max_steps", "3"]

    parse(argv)

    assert argv == ["--max_steps", "3"]


def test_help_answers_without_torch():
    code = (
        "import sys; from scripts.train_sft import parse_args\n"
        "try: parse_args(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "--hf_dataset_path" in done.stdout
