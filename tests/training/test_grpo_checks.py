"""What online training refuses before any weights load, and what a prompt may tell."""

import json
from types import SimpleNamespace

import pytest
from transformers import TrainerState
from trl import GRPOConfig

from collabllm.tasks import Task
from collabllm.training.grpo_checks import warn_of_reuse
from collabllm.training.grpo_online import PolicyReward
from collabllm.training.grpo_prompts import build_openings
from collabllm.training.grpo_settings import GRPOSettings
from scripts.train_grpo import parse_args
from tests.training.conftest import save_tiny_model


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_task_without_an_opening_opens_in_plain_words_and_never_by_its_goal():
    tasks = [
        Task("a", "A birthday cake for my daughter Ann, without nuts."),
        Task("b", "A letter to Bob.", task_desc="writing a letter"),
        Task("c", "A chess club's poster.", opening="I need a poster."),
    ]

    prompts = build_openings(tasks, GRPOSettings(system_prompt=""))["prompt"]

    assert [[message["content"] for message in prompt] for prompt in prompts] == [
        ["I need help with something."],
        ["writing a letter"],
        ["I need a poster."],
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": '{"interactivity": 1}'}, "'interactivity' needs a judge: give --judge_model"),
        ({"watched": "document->bleu"}, "'document->bleu' needs a judge"),
        ({"max_eval_pairs": 20}, "max_eval_pairs does not work here: .* Give --max_eval_tasks"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
        ({"top_k": -1}, "top_k must not be negative, got -1"),
        ({"sync_ref_model": "true", "beta": 0.1}, "--sync_ref_model needs a second model"),
        ({"use_transformers_continuous_batching": True}, "would round the float32 adapter"),
        ({"credit": "conversation", "cache_implementation": "static"}, "cache_implementation does"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_load(grpo_flags, start_grpo, changes, message):
    with pytest.raises(ValueError, match=message):
        start_grpo(grpo_flags(**changes))


def test_first_tokens_are_left_out_only_where_they_say_something(grpo_flags, start_grpo, tmp_path):
    flags = {"hf_model_path": save_tiny_model(tmp_path / "thinks", "qwen3")}
    flags |= {"train_first_token": "false"}

    with pytest.raises(ValueError, match="every reply begins with <think>.*enable_thinking"):
        start_grpo(grpo_flags(**flags))

    start_grpo(grpo_flags(chat_template_kwargs='{"enable_thinking": false}', **flags))


def test_a_group_that_lies_in_two_processes_cannot_go_on_to_one_prompt(
    grpo_flags, start_grpo, monkeypatch
):
    monkeypatch.setattr(GRPOConfig, "world_size", property(lambda self: 2))

    with pytest.raises(ValueError, match="needs whole groups in each process, and 2 replies"):
        start_grpo(grpo_flags(prompts="own_turns", batch_size=2))

    start_grpo(grpo_flags(prompts="own_turns", batch_size=4))
    start_grpo(grpo_flags(prompts="openings", batch_size=2))


def test_processes_share_the_cost_limit():
    settings, _ = parse_args(["--max_cost", "3"])

    reward = PolicyReward(settings, SimpleNamespace(world_size=4))

    assert reward.settings.max_cost == 0.75
    assert settings.max_cost == 3


def test_two_tasks_with_one_goal_are_refused_and_one_that_opens_otherwise_is_taken_once(tmp_path):
    row = {"task_id": "a", "single_turn_prompt": "A cake.", "opening": "Bake with me."}
    facts = [{"name": "guests", "answer": "We are 12.", "value": "12"}]
    copies = write(tmp_path / "copies.jsonl", [row, {**row, "task_id": "b", "opening": "Help me."}])
    others = write(tmp_path / "others.jsonl", [row, {**row, "task_id": "b", "facts": facts}])

    assert [task.task_id for task in GRPOSettings(tasks=str(copies)).load_tasks()] == ["a"]
    with pytest.raises(ValueError, match=r"others\.jsonl: the tasks 'a' and 'b' have one goal"):
        GRPOSettings(tasks=str(others)).load_tasks()


def test_turns_that_no_task_of_the_run_belongs_to_are_refused(
    grpo_flags, start_grpo, small_dataset, tmp_path
):
    facts = [{"name": "size", "answer": "We are 12.", "value": "12"}]
    goals = [{"single_turn_prompt": f"task {number}", "facts": facts} for number in range(12)]
    flags = {
        "prompts": "turns",
        "hf_dataset_path": small_dataset,
        "split_by": "single_turn_prompt",
        "weights": '{"facts_elicited": 1}',
    }

    with pytest.raises(
        ValueError, match=r"of the \d+ goals of the prompts have no task in --tasks"
    ):
        start_grpo(grpo_flags(tasks=write(tmp_path / "few.jsonl", goals[:9]), **flags))

    start_grpo(grpo_flags(tasks=write(tmp_path / "all.jsonl", goals), **flags))
    start_grpo(grpo_flags(tasks="demo", **{**flags, "hf_dataset_path": "demo"}))


def test_turns_of_a_held_out_task_are_refused(grpo_flags, start_grpo, small_dataset):
    flags = {"prompts": "turns", "hf_dataset_path": small_dataset, "weights": '{"bleu": 1}'}

    with pytest.raises(ValueError, match=r"held-out tasks are among the prompts: --split_by conv"):
        start_grpo(grpo_flags(split_by="conv_id", **flags))


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, None),
        ({"num_iterations": 2, "save_steps": 2}, None),
        ({"num_iterations": 2, "save_steps": 2, "step": 3}, 2),
        ({"num_iterations": 2, "save_steps": 3}, 2),
        ({"num_iterations": 3, "save_steps": 0.1}, 3),
        ({"num_iterations": 2, "save_steps": 3, "save_strategy": "no"}, None),
        ({"steps_per_generation": 4, "save_steps": 1}, 4),
        ({"steps_per_generation": 2, "gradient_accumulation_steps": 4, "save_steps": 1}, None),
        ({"steps_per_generation": 6, "gradient_accumulation_steps": 4, "save_steps": 1}, 3),
    ],
)
def test_replies_that_serve_several_steps_are_told_where_a_resume_would_lose_them(
    tmp_path, caplog, changes, steps
):
    fields = {"save_strategy": "steps", "report_to": "none", "use_cpu": True, **changes}
    step = fields.pop("step", 0)
    config = GRPOConfig(
        str(tmp_path), per_device_train_batch_size=4, num_generations=4, bf16=False, **fields
    )
    TrainerState(global_step=step).save_to_json(str(tmp_path / "trainer_state.json"))

    warn_of_reuse(config, str(tmp_path))

    assert [f"{steps} steps" in record.getMessage() for record in caplog.records] == (
        [True] if steps else []
    )
