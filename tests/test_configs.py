"""Every preset is read by its script; flags that repeat come from the file or the command line."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from collabllm.ablation.run import plan
from collabllm.ablation.settings import AblationSettings
from collabllm.data_engine.settings import BuildSettings
from collabllm.evaluation.settings import EvaluationSettings
from collabllm.settings import parse_settings
from collabllm.simulation.settings import SimulationSettings
from collabllm.simulation.side_by_side import SideBySideSettings
from collabllm.training.schedule import plan_evaluation
from scripts import train_dpo, train_grpo, train_sft

ROOT = Path(__file__).parents[1]
ABLATIONS = ("ablation_credit.yaml", "ablation_window.yaml")
READERS = {
    "demo.yaml": lambda words: train_sft.parse_args(words)[0],
    "demo_build.yaml": lambda words: parse_settings(BuildSettings, words),
    "demo_compare.yaml": lambda words: parse_settings(SideBySideSettings, words),
    "demo_dpo.yaml": lambda words: train_dpo.parse_args(words)[0],
    "demo_grpo.yaml": lambda words: train_grpo.parse_args(words)[0],
    "demo_simulate.yaml": lambda words: parse_settings(SimulationSettings, words),
    "effect_demo.yaml": lambda words: parse_settings(EvaluationSettings, words),
    "effect_in3.yaml": lambda words: parse_settings(EvaluationSettings, words),
    "gpu/dpo_8b.yaml": lambda words: train_dpo.parse_args(words)[0],
    "gpu/sft_1b.yaml": lambda words: train_sft.parse_args(words)[0],
    "gpu/sft_3b.yaml": lambda words: train_sft.parse_args(words)[0],
    "gpu/sft_8b.yaml": lambda words: train_sft.parse_args(words)[0],
    "loop_build.yaml": lambda words: parse_settings(BuildSettings, words),
    "loop_corrected.yaml": lambda words: train_sft.parse_args(words)[0],
    "loop_simulate.yaml": lambda words: parse_settings(SimulationSettings, words),
    "loop_dpo.yaml": lambda words: train_dpo.parse_args(words)[0],
    "loop_evaluate.yaml": lambda words: parse_settings(EvaluationSettings, words),
}


def read(name, *words):
    return READERS[name](["--config", str(ROOT / "configs" / name), *words])


def test_there_is_no_preset_without_a_script():
    folder = ROOT / "configs"
    found = [*folder.glob("*.yaml"), *folder.glob("gpu/*.yaml")]
    assert {str(path.relative_to(folder)) for path in found} == {*READERS, *ABLATIONS}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_names_files_that_are_there_and_ways_that_its_method_knows(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    words = ["--config", f"configs/{name}", "--output_dir", str(tmp_path)]
    settings = parse_settings(AblationSettings, words)

    trainings, evaluations = plan(settings)

    ways = ["start", *settings.arms]
    assert [training.arm for training in trainings] == ways * 3
    assert [arm.name for arm in evaluations[0].arms] == [*settings.arms, "start"]


@pytest.mark.parametrize("name", READERS)
def test_a_preset_is_read_by_its_script_and_the_command_line_wins(name):
    assert read(name).system_prompt.startswith("You help")
    assert read(name, "--system_prompt", "Be brief.").system_prompt == "Be brief."


@pytest.mark.parametrize("name", [name for name in READERS if name.startswith("gpu/")])
def test_a_long_run_of_a_gpu_preset_saves_at_the_steps_at_which_it_evaluates(name):
    script = train_dpo if "dpo" in name else train_sft
    _, fields = script.parse_args(["--config", str(ROOT / "configs" / name)])
    saving = {name: fields[name] for name in ("save_strategy", "save_steps")}
    config = SimpleNamespace(
        max_steps=500, eval_strategy="no", metric_for_best_model=None, **saving
    )

    plan_evaluation(config, fields, 1000, has_eval=True)

    assert (config.eval_strategy, config.save_strategy) == ("steps", "steps")
    assert (config.eval_steps, float(config.save_steps)) == (0.1, 0.1)


def test_the_arms_of_a_file_are_all_taken_unless_the_command_line_names_some():
    from_file = read("loop_evaluate.yaml")
    given = read("loop_evaluate.yaml", "--arm", "name=x")

    assert [arm.name for arm in from_file.arms] == ["base", "proactive base", "SFT", "corrected"]
    assert [arm.name for arm in given.arms] == ["x"]
    assert from_file.told == [0, "some", "all"]


def test_the_weights_of_a_file_arrive_as_numbers():
    weights = read("demo_build.yaml").weights

    assert weights == {"facts_elicited": 1.0, "facts_used": 0.5, "over_asking": -0.3}
