"""scripts/train_grpo.py from flags to adapter, on a tiny model, with rule-based users."""

import asyncio
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from collabllm.data.demo_generator import generate_rows
from collabllm.errors import CostLimitError, IncompleteRunError, ServerError
from collabllm.rewards.multiturn import RewardEstimate
from collabllm.rewards.registry import MetricValue
from collabllm.rewards.scoring import NO_REPLY, Future
from collabllm.simulation import UserModel
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.user_models import UserTurnResult
from collabllm.tasks import load_tasks
from collabllm.training.grpo import GRPO
from collabllm.training.grpo_online import PolicyReward, choose_tasks, describe
from collabllm.training.grpo_own_turns import go_on
from collabllm.training.grpo_prompts import PromptSampler
from collabllm.training.schedule import plan_evaluation
from collabllm.training.token_budget import TokenBudget
from scripts.train_grpo import main, parse_args


def read_metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize(("prompts", "max_turns"), [("openings", 1), ("own_turns", 3)])
def test_a_run_leaves_what_sft_leaves_and_its_conversations(
    grpo_flags, tmp_path, capsys, prompts, max_turns
):
    from collabllm.evaluation.report.view import view

    main(grpo_flags(prompts=prompts, max_turns=max_turns))

    folder = tmp_path / "run"
    metrics = read_metrics(folder)
    steps = [entry for entry in metrics["log_history"] if "futures/missing" in entry]
    assert len(steps) == 2
    assert {"reward", "futures/repetition", "futures/token_amount", "futures/floor"} <= set(
        steps[0]
    )
    assert steps[0]["futures/missing"] == 0
    assert metrics["before"]["num_conversations"] == 2
    assert {"reward", "repetition", "token_amount"} <= set(metrics["after"])
    scripted = metrics["data"]["reward of scripted policies"]
    assert {"scripted/honest", "scripted/echo"} <= scripted.keys()
    assert (folder / "adapter_model.safetensors").is_file()
    assert "online (GRPO)" in (folder / "README.md").read_text()
    assert (folder / "train_config.yaml").read_text().startswith("# scripts/train_grpo.py")
    files = {file.name for file in (folder / "conversations").iterdir()}
    assert files == {"held_out-00000.jsonl", "held_out-after.jsonl", "sample-00002.jsonl"}
    assert view(str(folder / "conversations")).is_file()
    assert "Preflight, training" in capsys.readouterr().out


def test_the_openings_of_a_task_are_answered_together(grpo_flags, monkeypatch):
    answered = []
    reward = PolicyReward.__call__

    def record(self, prompts, completions, **columns):
        openings = [prompt[-1]["content"] for prompt in prompts]
        answered.extend(zip(columns["single_turn_prompt"], openings, strict=True))
        return reward(self, prompts, completions, **columns)

    monkeypatch.setattr(PolicyReward, "__call__", record)
    flags = grpo_flags(batch_size=16, max_steps=3, eval_ratio=0, sample_steps=0)
    main([*flags, "--num_told", "0", "9"])

    distinct = list(dict.fromkeys(answered))
    tasks = [task for task, _ in itertools.groupby(distinct, key=lambda pair: pair[0])]
    assert len(distinct) == 12
    assert len(tasks) == len(set(tasks)) < 12
    places = [task.single_turn_prompt for task in load_tasks("demo")]
    assert [*map(places.index, tasks)] != sorted(map(places.index, tasks))


def test_each_epoch_has_an_order_of_tasks_and_none_is_always_left_out():
    tasks = [f"t{i // 2}" for i in range(14)]
    sampler = PromptSampler(tasks, tasks, seed=0, mini_repeat_count=2, batch_size=4, repeat_count=3)
    orders = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert list(sampler) == orders[-1]

    for order in orders:
        assert len(order) == len(sampler) == 12 * 2 * 3
        for start in range(0, len(order), 24):
            assert order[start : start + 8] * 3 == order[start : start + 24]
            answered = [tasks[i] for i in order[start : start + 8 : 2]]
            assert answered == sorted(answered, key=answered.index)
    assert len(set(map(tuple, orders))) > 10
    assert set().union(*orders) == set(range(14))


def test_a_run_resumed_in_its_fourth_epoch_answers_the_same_prompts(
    grpo_flags, tmp_path, monkeypatch
):
    rows = [row for row in generate_rows() if row["single_turn_metadata"]["opening"] == "full"]
    kinds = [row["single_turn_metadata"]["kind"] for row in rows]
    five = [
        row for row, kind in zip(rows, kinds, strict=True) if kind in [*dict.fromkeys(kinds)][:5]
    ]
    (tmp_path / "five.jsonl").write_text("".join(json.dumps(row) + "\n" for row in five))
    answered = []
    reward = PolicyReward.__call__

    def record(self, prompts, *args, **columns):
        answered.append(columns["single_turn_prompt"])
        return reward(self, prompts, *args, **columns)

    monkeypatch.setattr(PolicyReward, "__call__", record)
    common = {"hf_dataset_path": tmp_path / "five.jsonl", "batch_size": 8, "max_steps": 8}
    common |= {"save_strategy": "steps", "save_steps": 1, "eval_ratio": 0, "sample_steps": 0}
    main(grpo_flags(**common))
    last = tmp_path / "run/checkpoint-7"
    main(grpo_flags(output_dir=tmp_path / "resumed", resume_from_checkpoint=last, **common))

    assert len({task for tasks in answered[:2] for task in tasks}) == 4
    assert answered[:2] != answered[6:8]
    assert answered[8:] == answered[7:8]


@pytest.mark.parametrize("error", [IncompleteRunError, CostLimitError])
def test_a_run_that_its_guards_stop_keeps_the_steps_that_ended(
    grpo_flags, tmp_path, monkeypatch, error
):
    reward, calls = PolicyReward.__call__, []

    def fail_in_the_second_step(self, *args, **columns):
        calls.append(1)
        if len(calls) == 2:
            raise error("No more.")
        return reward(self, *args, **columns)

    monkeypatch.setattr(PolicyReward, "__call__", fail_in_the_second_step)
    flags = grpo_flags(eval_ratio=0, sample_steps=0)
    with pytest.raises(error, match=r"No more\. .*checkpoint-1 is kept"):
        main(flags)
    main([*flags, "--resume_from_checkpoint", "true"])

    log = json.loads((tmp_path / "run/metrics.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "reward" in entry] == [1, 2]


@pytest.mark.parametrize("credit", ["turn", "conversation"])
def test_an_interrupted_run_from_an_adapter_goes_on_to_the_same_adapter(
    grpo_flags, sft_flags, brief_model, tmp_path, credit
):
    from scripts.train_sft import main as train_sft

    train_sft(
        sft_flags(
            hf_model_path=brief_model,
            output_dir=tmp_path / "sft",
            max_steps=2,
            learning_rate=1e-4,
            load_in_4bit="false",
            dtype="float32",
        )
    )
    common = {
        "lora_path": tmp_path / "sft",
        "lora_r": None,
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_ratio": 0,
        "sample_steps": 0,
        "beta": 0.001,
        "credit": credit,
        "max_turns": 2,
    }
    main(grpo_flags(output_dir=tmp_path / "whole", **common))
    checkpoint = tmp_path / "whole/checkpoint-1"
    main(grpo_flags(output_dir=tmp_path / "resumed", resume_from_checkpoint=checkpoint, **common))

    start, whole, resumed = (
        load_file(tmp_path / f"{name}/adapter_model.safetensors")
        for name in ("sft", "whole", "resumed")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert set(start) == set(whole)
    assert not (tmp_path / "whole/ref").exists()
    assert written(tmp_path / "whole") == written(tmp_path / "resumed")
    assert max((whole[name] - start[name]).abs().max() for name in whole) > 0


def test_dropout_is_off_and_stays_in_the_adapters_configuration(
    grpo_flags, sft_flags, brief_model, tmp_path
):
    from scripts.train_sft import main as train_sft

    start = {"hf_model_path": brief_model, "output_dir": tmp_path / "sft", "load_in_4bit": "false"}
    train_sft(sft_flags(max_steps=1, dtype="float32", eval_ratio=0, lora_dropout=0.1, **start))
    main(grpo_flags(lora_path=tmp_path / "sft", lora_r=None, beta=0.1, max_steps=1, eval_ratio=0))

    (step,) = [e for e in read_metrics(tmp_path / "run")["log_history"] if "kl" in e]
    assert step["kl"] == 0  # of the start to itself: with dropout the two would differ
    config = json.loads((tmp_path / "run/adapter_config.json").read_text())
    assert config["lora_dropout"] == 0.1


def written(folder):
    steps = read_metrics(folder)["log_history"]
    return [step["generated_tokens"] for step in steps if "generated_tokens" in step][-1]


@pytest.mark.parametrize(("credit", "futures_are_more"), [("turn", True), ("conversation", False)])
def test_a_run_ends_when_the_policy_has_written_enough(
    grpo_flags, tmp_path, credit, futures_are_more
):
    limit = {"max_generated_tokens": 5, "max_steps": 3}
    main(grpo_flags(eval_ratio=0, sample_steps=0, max_turns=2, credit=credit, **limit))

    log = read_metrics(tmp_path / "run")["log_history"]
    (step,) = [step for step in log if "generated_tokens" in step]
    replied = step["completions/mean_length"] * 4
    assert (step["generated_tokens"] > replied) == futures_are_more
    assert step["generated_tokens"] >= replied
    assert (tmp_path / "run/adapter_model.safetensors").is_file()


def test_a_run_killed_when_its_tokens_were_spent_takes_no_step_more(grpo_flags, tmp_path):
    common = {"eval_ratio": 0, "sample_steps": 0, "max_generated_tokens": 5, "max_steps": 3}
    main(grpo_flags(save_strategy="steps", save_steps=1, **common))
    checkpoint = tmp_path / "run/checkpoint-1"

    main(grpo_flags(output_dir=tmp_path / "resumed", resume_from_checkpoint=checkpoint, **common))

    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("run", "resumed"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert written(tmp_path / "run") == written(tmp_path / "resumed")


def test_a_run_that_ends_before_its_tokens_says_so(caplog):
    budget = TokenBudget(10)
    budget.total = 9

    budget.on_train_end(None, SimpleNamespace(global_step=1, max_steps=2), None)  # by a signal
    assert "raise --max_steps" not in caplog.text
    budget.on_train_end(None, SimpleNamespace(global_step=2, max_steps=2), None)

    assert "ended at 9 of 10 generated tokens, after 2 steps: raise --max_steps" in caplog.text


def test_the_turns_of_a_dataset_are_prompts(grpo_flags, small_dataset, start_grpo):
    flags = grpo_flags(
        hf_dataset_path=small_dataset,
        prompts="turns",
        split_by="single_turn_prompt",
        system_prompt="Be brief.",
    )

    _, data = start_grpo(flags)

    lengths = [len(row["prompt"]) for row in data.train]
    assert set(lengths) == {2, 4}
    assert lengths.count(2) < lengths.count(4)  # an opening is there once, however often it is used
    assert data.train[0]["prompt"][0]["content"] == "Be brief."


@pytest.mark.parametrize(
    ("prompts", "changes", "same"),
    [
        ("turns", {"shuffle_dataset": "false"}, True),  # in the order of the dataset
        ("turns", {"data_seed": 1}, False),
        ("openings", {"data_seed": 1}, False),
        ("openings", {}, True),
    ],
)
def test_prompts_are_ordered_by_what_the_flags_say(
    grpo_flags, start_grpo, small_dataset, prompts, changes, same
):
    def order(**flags):
        run, data = start_grpo(grpo_flags(prompts=prompts, **given, **flags))
        trainer = run.method.build_trainer(run, data)
        found = list(dict.fromkeys(trainer._get_train_sampler()))
        trainer.online.close()
        return found

    given = {"hf_dataset_path": small_dataset, "split_by": "single_turn_prompt"}
    given = given if prompts == "turns" else {}
    one, other = order(**changes), order(**changes | ({} if same else {"data_seed": 2}))

    assert (one == other) is same
    if "shuffle_dataset" in changes:
        assert one == sorted(one)


def test_prompts_that_fill_no_step_are_not_counted():
    config = SimpleNamespace(generation_batch_size=8, num_generations=4, num_iterations=1)

    assert GRPO().count_rows(27, config) == 26 * 4  # 13 steps of 8 replies


def test_what_cannot_work_is_said_before_weights_load(grpo_flags):
    with pytest.raises(ValueError, match="leaves no room for a prompt in max_length=16"):
        main(grpo_flags(max_completion_length=32, max_length=16))
    with pytest.raises(ValueError, match=r"prompts none fits into max_length=24\. Raise"):
        main(grpo_flags(max_length=24))
    with pytest.raises(ValueError, match="must be divisible by num_generations") as error:
        main(grpo_flags(num_generations=3, batch_size=4))
    assert error.traceback[-1].frame.f_globals["__name__"] == "collabllm.training.start"
    with pytest.raises(ValueError, match="did you mean 'facts_elicited'"):
        main(grpo_flags(weights='{"facts_elicitd": 1}'))
    with pytest.raises(ValueError, match="min_p does not work with --credit conversation"):
        main(grpo_flags(credit="conversation", min_p=0.1))


def future(reward, reason="max_turns", value=0.5):
    return Future([], reason, {"facts_elicited": MetricValue(value, "because")}, 10, reward, 0)


def test_a_step_with_too_many_missing_rewards_stops_the_run():
    given = [RewardEstimate("a", [future(1.0)]), RewardEstimate("b", [future(None, value=None)])]

    async def estimate(*args, **kwargs):
        return given

    settings, _ = parse_args(["--max_missing", "0.4"])
    reward = PolicyReward(settings, SimpleNamespace())
    reward.policy, reward._inner = FakePolicy(), SimpleNamespace(estimate=estimate)
    logged = {}
    with pytest.raises(IncompleteRunError, match=r"1 of 2 replies .* no reward \(because\)"):
        reward([], [], completion_ids=[], log_metric=logged.__setitem__)
    reward.settings.max_missing = 0.5

    assert reward([], [], completion_ids=[], log_metric=logged.__setitem__) == [1.0, None]
    assert logged["futures/missing"] == 0.5


class FakePolicy:
    def borrow(self):
        from contextlib import nullcontext

        return nullcontext()


def test_the_log_of_a_step_is_that_worked_out_by_hand():
    estimates = [
        RewardEstimate("a", [future(1.0, value=0.2), future(0.0, value=0.6)]),
        RewardEstimate("", [future(-1.0, NO_REPLY, None)]),
        RewardEstimate("late"),
    ]

    # Standard error of 1 and 0: their deviation, sqrt(0.5), by sqrt(2).
    assert describe(estimates) == {
        "futures/facts_elicited": pytest.approx(0.4),
        "futures/tokens": 10,
        "futures/standard_error": pytest.approx(0.5),
        "futures/missing": pytest.approx(1 / 3),
        "futures/floor": pytest.approx(1 / 3),
    }


class Numbering(UserModel):
    """Counts its messages; cannot speak about one task."""

    async def agenerate(self, messages, *, seed=None):
        if self.single_turn_prompt == "broken":
            raise ServerError("down")
        if self.single_turn_prompt == "silent":
            await asyncio.Event().wait()
        return UserTurnResult(f"more {sum(m['role'] == 'user' for m in messages)}", False)


class Echo(Assistant):
    def generate(self, messages):
        return f"to {messages[-1]['content']}"

    def borrow(self):
        return FakePolicy().borrow()

    def tokenize(self, messages):
        return [0] * len(messages)


@pytest.fixture
def go_on_at():
    def go_on_at(rows, step=0, max_length=100, with_share=False):
        flags = ["--max_turns=4", f"--max_length={max_length}", "--reward_timeout_s=2"]
        settings, _ = parse_args(flags)
        online = SimpleNamespace(
            settings=settings,
            policy=Echo(),
            tasks={},
            user_factory=lambda task, seed: Numbering("", task.single_turn_prompt),
            config=SimpleNamespace(max_completion_length=1),
        )
        gone_on, failed = go_on(rows, online, step)
        return (gone_on, failed) if with_share else gone_on

    return go_on_at


def opening(goal, text="hi"):
    return {"prompt": [{"role": "user", "content": text}], "single_turn_prompt": goal, "more": 1}


def test_own_turns_are_conversations_up_to_the_user_the_same_for_a_whole_group(go_on_at):
    rows = [opening("a")] * 2 + [opening("b")] * 2

    steps = [go_on_at(rows, step) for step in range(12)]

    assert rows == [opening("a")] * 2 + [opening("b")] * 2
    assert {len(row["prompt"]) for step in steps for row in step} == {1, 3, 5, 7}
    assert all(step[0] == step[1] and step[2] == step[3] for step in steps)
    longest = next(row for step in steps for row in step if len(row["prompt"]) == 5)
    assert [message["content"] for message in longest["prompt"]] == [
        "hi",
        "to hi",
        "more 1",
        "to more 1",
        "more 2",
    ]
    assert longest["more"] == 1


def test_a_conversation_that_failed_or_leaves_no_room_stays_the_opening(go_on_at):
    broken = [go_on_at([opening("broken")], step)[0] for step in range(12)]
    full = [go_on_at([opening("a")], step, max_length=4)[0] for step in range(12)]

    assert broken == [opening("broken")] * 12
    assert {len(row["prompt"]) for row in full} == {1, 3}


def test_the_share_of_conversations_that_failed_or_came_too_late_is_known(go_on_at):
    rows = [opening(goal) for goal in ("a", "b", "broken", "silent")]

    shares = [go_on_at(rows, step, with_share=True)[1] for step in (0, 2)]

    assert shares == [0.5, 0.25]  # at the second one of the two had no turn to fail in


def test_a_step_with_more_prompts_than_there_are_is_refused_before_weights_load(
    grpo_flags, start_grpo, tmp_path
):
    fact = {"name": "size", "answer": "It is large."}
    rows = [{"single_turn_prompt": f"g{i}", "opening": f"o{i}", "facts": [fact]} for i in range(6)]
    (tmp_path / "six.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = grpo_flags(
        tasks=tmp_path / "six.jsonl",
        batch_size=28,
        eval_ratio=0,
        split_by=None,
    )

    with pytest.raises(ValueError, match="6 prompts are too few for a step of 7: lower --batch"):
        start_grpo(flags)
    with pytest.raises(ValueError, match="dataset_weights does not work here"):
        start_grpo([*flags, "--dataset_weights", "2"])


def test_a_long_run_is_known_by_its_replies_and_held_out_tasks_have_every_opening(
    grpo_flags, start_grpo, tmp_path
):
    facts = [{"name": "size", "answer": "It is large."}]
    rows = [{"single_turn_prompt": f"g{i}", "opening": f"o{i}", "facts": facts} for i in range(64)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = grpo_flags(
        tasks=tmp_path / "tasks.jsonl",
        max_steps=None,
        num_train_epochs=2,
        eval_ratio=0.5,
        split_by=None,
    )

    run, data = start_grpo([*flags, "--num_told", "0", "1"])
    plan_evaluation(run.config, {}, run.method.count_rows(len(data.train), run.config), True)

    assert len(data.train) < 100  # one of them a step
    assert run.config.eval_steps == run.config.save_steps == 0.1
    opened = choose_tasks(run.settings.open_tasks("eval"), 32)
    told = [task.task_id.endswith("+1") for task in opened]
    assert len(opened) == 32
    assert 8 < sum(told) < 24
