import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from collabllm.settings import (
    Settings,
    deciding_values,
    nearest_names,
    parse_settings,
    parse_settings_and_rest,
    read_mapping,
    setting,
    to_settings,
    to_yaml,
)


@dataclass
class Model:
    _argument_group_name = "the model"
    hf_model_path: str = setting("tiny", "Hub id or folder.", metavar="MODEL")
    temperature: float = setting(0.7, "Of sampling; 100% random at infinity.")


@dataclass
class Run(Model):
    _argument_group_name = "the run"
    learning_rate: float = setting(2e-5, "Peak learning rate.")
    num_told: list[int] = setting([0], "Facts told.")
    arm: list[str] = setting([], "A competitor.", repeated=True)
    weights: dict[str, float] = setting({}, "Metrics and weights.")
    side: Literal["all", "train"] = setting("all", "Side of the split.")
    resume: bool = setting(False, "Go on.")

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}.")


@dataclass(kw_only=True)
class Ship(Settings):
    load: str = setting(help="What it carries.", positional=True)
    output_dir: str = setting("outputs", "Folder.", aliases=("--output",), decides=False)
    crew: float = setting(1, "People.", least=1)
    sails: list[int] = setting([1], "Sizes.", most=3)
    port: Literal["north", "south"] = setting("north", "Where it goes.")


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse_settings(Run, argv)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("word", "value"), [("on", True), ("OFF", False), ("yes", True)])
def test_a_switch_reads_the_usual_words(word, value):
    assert parse_settings(Run, ["--resume", word]).resume is value


def test_flags_set_fields_with_underscores_or_dashes():
    run = parse_settings(Run, ["--learning-rate", "1e-3", "--num_told", "0", "2", "--resume"])

    assert (run.learning_rate, run.num_told, run.resume) == (1e-3, [0, 2], True)
    assert run.hf_model_path == "tiny"


def test_the_command_line_wins_over_the_file_also_for_repeated_flags(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("arm: [a, b]\nlearning-rate: 2e-4\nweights: {x: 1}\ntemperature: 0\n")

    from_file = parse_settings(Run, ["--config", str(file)])
    both = parse_settings(Run, [f"--config={file}", "--arm", "c", "--arm", "d", "--temperature=1"])

    assert (from_file.arm, from_file.learning_rate) == (["a", "b"], 2e-4)
    assert (from_file.weights, from_file.temperature) == ({"x": 1}, 0)
    assert (both.arm, both.temperature) == (["c", "d"], 1.0)


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("--lr", "--learning_rate"),
        ("--model", "--hf_model_path"),
        ("--temprature", "--temperature"),
    ],
)
def test_an_unknown_flag_offers_the_nearest_name(capsys, flag, near):
    assert f"{flag} is not known; did you mean {near}" in failure(capsys, flag, "1")


def test_wrong_values_end_with_one_sentence(capsys, tmp_path):
    list_file, unknown = tmp_path / "list.yaml", tmp_path / "unknown.yaml"
    list_file.write_text("- a\n")
    unknown.write_text("temprature: 1\n")

    assert "_rate must be a number, got 'two'." in failure(capsys, "--learning_rate", "two")
    assert "learning_rate must be positive, got -1.0." in failure(capsys, "--learning_rate", "-1")
    assert "--weights: must be a JSON object, got 'x'" in failure(capsys, "--weights", "x")
    assert "must map names to values, got list" in failure(capsys, "--config", str(list_file))
    assert "did you mean --temperature" in failure(capsys, "--config", str(unknown))
    assert "there is no such file" in failure(capsys, "--config", "nowhere.yaml")
    assert "Unexpected word 'stray'" in failure(capsys, "stray")
    assert len(failure(capsys, "--side", "left").splitlines()) == 2


@dataclass
class Kinds:
    turns: int = setting(1, "Whole.")
    share: float | None = setting(None, "A number.")
    go_on: bool = setting(False, "On or off.")
    folder: str = setting("a", "A text.")
    told: list[int] = setting([0], "Numbers.")
    factors: list[float] | None = setting(None, "Factors.")
    weights: dict[str, float] = setting({}, "A mapping.")
    anyone: dict[str, str] | str = setting("x", "A mapping or a text.")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("turns: 2.5", "turns must be a whole number, got 2.5."),
        ("turns: 2.0", "turns must be a whole number, got 2.0."),
        ("turns: true", "turns must be a whole number, got True."),
        ("turns: [1]", "turns must be a whole number, got [1]."),
        ("share: true", "share must be a number, got True."),
        ("go_on: 2", "go_on must be true or false, got 2."),
        ("folder: 2024", "folder must be a text (put it in quotes), got 2024."),
        ("folder: yes", "folder must be a text (put it in quotes), got True."),
        ("told: [0, 1.5]", "told must be whole numbers, got [0, 1.5]."),
        ("factors: [1, true]", "factors must be numbers, got [1, True]."),
        ("weights: [accuracy]", "weights must be a mapping of names to values, got ['accuracy']."),
        ("anyone: [a]", "anyone must be a mapping of names to values or a text (put it in quotes)"),
    ],
)
def test_a_value_of_a_file_is_of_the_kind_that_its_flag_reads(capsys, tmp_path, text, told):
    file = tmp_path / "kinds.yaml"
    file.write_text(text)

    with pytest.raises(SystemExit):
        parse_settings(Kinds, ["--config", str(file)])

    assert f"{file}: {told}" in capsys.readouterr().err


def test_values_of_a_file_that_fit_are_taken_and_texts_are_read_as_words(tmp_path):
    file = tmp_path / "kinds.yaml"
    file.write_text(
        "{turns: '3', share: 1, go_on: 'yes', told: 2, factors: [1, 0.5], weights: {a: 1},"
        " anyone: {b: c}}"
    )

    found = parse_settings(Kinds, ["--config", str(file)])

    assert (found.turns, found.share, found.go_on, found.told) == (3, 1, True, 2)
    assert (found.factors, found.weights, found.anyone) == ([1, 0.5], {"a": 1}, {"b": "c"})


def test_help_has_groups_sentences_and_defaults(capsys):
    with pytest.raises(SystemExit):
        parse_settings(Run, ["--help"], description="Try it.")
    text = capsys.readouterr().out

    assert "the model:" in text
    assert "the run:" in text
    assert "100% random" in text
    assert "(default: 2e-05)" in text
    assert "--learning-rate" not in text


def test_other_flags_are_left_to_the_trainer(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("max_steps: 5\npacking: true\n")

    run, rest = parse_settings_and_rest(
        Run,
        lambda: {"max_steps", "packing", "fp16", "logging_dir", "ids"},
        ["--config", str(file), "--max-steps", "7", "--fp16", "--logging_dir=x", "--ids", "1", "2"],
    )

    assert run.hf_model_path == "tiny"
    assert rest == {
        "max_steps": "7", "packing": True, "fp16": True, "logging_dir": "x", "ids": ["1", "2"],
    }  # fmt: skip


def test_a_function_takes_settings_or_plain_arguments():
    given = Run(learning_rate=1.0)

    assert to_settings(Run, None, {"learning_rate": 2.0}).learning_rate == 2.0
    assert to_settings(Run, given, {"resume": True}) == dataclasses.replace(given, resume=True)
    assert given.resume is False
    with pytest.raises(TypeError, match="lr is not known; did you mean learning_rate"):
        to_settings(Run, None, {"lr": 1})


def test_settings_written_as_yaml_read_back_the_same(tmp_path):
    run = Run(arm=["a"], weights={"x": 0.5}, num_told=[1, 2])
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(run))

    assert parse_settings(Run, ["--config", str(file)]) == run


def test_mappings_are_read_from_words_json_and_yaml():
    words = "name=a,system_prompt=Be brief, please,lora_path=x"

    assert read_mapping(words, "--arm") == {
        "name": "a", "system_prompt": "Be brief, please", "lora_path": "x",
    }  # fmt: skip
    assert read_mapping('{"name": "b"}', "--arm") == {"name": "b"}
    assert read_mapping({"name": "c"}, "--arm") == {"name": "c"}
    with pytest.raises(ValueError, match="--arm must be key=value,key=value, got 'base'"):
        read_mapping("base", "--arm")
    with pytest.raises(ValueError, match="'name' is given twice"):
        read_mapping("name=a,name=b", "--arm")


def test_an_alias_is_a_flag_and_a_key_of_the_file(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("output: a\n")

    assert parse_settings(Ship, ["--config", str(file), "cargo"]).output_dir == "a"
    assert parse_settings(Ship, ["--output", "b", "cargo"]) == Ship(output_dir="b", load="cargo")
    assert parse_settings(Ship, ["cargo"]).output_dir == "outputs"
    with pytest.raises(SystemExit):
        parse_settings(Ship, [])
    assert "missing: load" in capsys.readouterr().err


def test_bounds_and_choices_hold_from_python_too():
    with pytest.raises(ValueError, match="crew must be at least 1, got 0"):
        Ship(load="x", crew=0)
    with pytest.raises(ValueError, match="sails must be at most 3, got 4"):
        Ship(load="x", sails=[1, 4])
    with pytest.raises(ValueError, match="port must be one of north, south, got 'east'"):
        Ship(load="x", port="east")
    with pytest.raises(ValueError, match="crew must be at least 1, got nan"):
        Ship(load="x", crew=float("nan"))


def test_what_does_not_decide_about_results_is_left_out():
    assert deciding_values(Ship(load="x")) == {
        "load": "x", "crew": 1, "sails": [1], "port": "north",
    }  # fmt: skip


def test_nearest_names_are_parts_initials_and_alikes():
    known = ["hf_dataset_path", "shuffle_dataset", "learning_rate", "lora_r"]

    assert nearest_names("hf_dataset", known)[0] == "hf_dataset_path"
    assert nearest_names("lr", known)[0] == "learning_rate"
    assert nearest_names("zzz", known) == []
    assert nearest_names("nm_tasks", ["tasks", "num_tasks", "task_columns"])[0] == "num_tasks"


def test_reading_settings_loads_no_torch():
    code = "import sys, collabllm.settings; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
