"""Every preset is read by its script; flags that repeat come from the file or the command line."""

from pathlib import Path

import pytest

from scripts import build_dataset, evaluate, simulate_chats, train_dpo, train_sft

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "demo.yaml": train_sft,
    "demo_build.yaml": build_dataset,
    "demo_dpo.yaml": train_dpo,
    "demo_simulate.yaml": simulate_chats,
    "loop_build.yaml": build_dataset,
    "loop_dpo.yaml": train_dpo,
    "loop_evaluate.yaml": evaluate,
}


def test_there_is_no_preset_without_a_script():
    assert {path.name for path in (ROOT / "configs").glob("*.yaml")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_preset_is_read_by_its_script(name):
    args = SCRIPTS[name].parse_args(["--config", str(ROOT / "configs" / name)])

    assert str(args.config).endswith(name)


def test_the_arms_of_a_file_are_all_taken_unless_the_command_line_names_some():
    config = ["--config", str(ROOT / "configs/loop_evaluate.yaml")]

    from_file = evaluate.parse_args(config)
    given = evaluate.parse_args([*config, "--arm", "name=x"])

    assert [arm.name for arm in from_file.arm] == ["base", "proactive base", "SFT", "SFT+DPO"]
    assert [arm.name for arm in given.arm] == ["x"]
    assert from_file.num_told == [0, 1, 2, 3]


def test_the_weights_of_a_file_arrive_as_numbers():
    args = build_dataset.parse_args(["--config", str(ROOT / "configs/demo_build.yaml")])

    assert args.weights == {"facts_elicited": 1.0, "facts_used": 0.5, "over_asking": -0.3}
