"""Conversations on the way of an online run: without rewards, too dear, hung, read in a tracker."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from collabllm.errors import CostLimitError, ServerError
from collabllm.simulation import UserModel
from collabllm.simulation.user_models import UserTurnResult, registry
from collabllm.tasks import load_tasks
from collabllm.training import grpo_trainer
from collabllm.training.card import write_card
from collabllm.training.checkpoints import clear_folder
from collabllm.training.grpo_online import PolicyReward
from collabllm.training.grpo_talks import measure, talk_about
from collabllm.training.grpo_trainer import OnlineTrainer
from collabllm.training.held_out import print_comparison
from scripts.train_grpo import main, parse_args
from tests.training.test_grpo import Echo, read_metrics
from tests.training.test_resume import assert_same_adapter, start


class Moody(UserModel):
    """Opens its task and asks for more, until its moods of a task come to an end or an error."""

    def __init__(self, task, moods):
        super().__init__(task.task_desc, task.single_turn_prompt)
        self.task, self.moods = task, moods

    async def agenerate(self, messages, *, seed=None):
        mood = self.moods.get(self.task.task_id)
        if mood == "silent":
            await asyncio.Event().wait()
        if mood:
            raise mood
        return UserTurnResult("more", False)


@pytest.fixture
def moods(monkeypatch):
    """Return a dict to fill, of what the users of `--user moody` do to a task."""
    found = {}
    kind = lambda clients: lambda task, seed: Moody(task, found)  # noqa: E731
    monkeypatch.setitem(registry._KINDS, "moody", kind)
    return found


@pytest.fixture
def online(moods):
    """Return who talks, rewarded by repetition."""
    settings, _ = parse_args(["--max_turns=1", "--reward_timeout_s=2", "--concurrency=1"])
    settings.weights, settings.watched = {"repetition": 1.0}, []
    return SimpleNamespace(
        settings=settings,
        policy=Echo(),
        tools=PolicyReward(settings, None).tools,
        user_factory=lambda task, seed: Moody(task, moods),
    )


def test_only_conversations_with_a_reward_count_and_the_others_are_told(
    online, moods, tmp_path, caplog
):
    tasks = load_tasks("demo", limit=3)
    moods[tasks[0].task_id] = ServerError("the user's server is down")

    scores = measure(talk_about(tasks, online, tmp_path / "talks.jsonl"))

    assert scores == {"reward": 0.0, "repetition": 0.0, "num_conversations": 2.0}
    assert "1 of 3 conversations have no reward (the conversation ended as" in caplog.text
    assert len((tmp_path / "talks.jsonl").read_text().splitlines()) == 3


def test_a_user_that_hangs_costs_its_conversation_and_not_the_run(online, moods, tmp_path):
    tasks = load_tasks("demo", limit=3)
    moods[tasks[1].task_id] = "silent"

    talks = talk_about(tasks, online, tmp_path / "talks.jsonl")

    errors = [record.result.error for record, _ in talks]
    assert sorted(errors) == ["", "", "it took over 2 s"]
    assert [future.reward is None for _, future in talks] == [bool(error) for error in errors]


def test_a_cost_limit_within_held_out_conversations_ends_the_run(online, moods, tmp_path):
    tasks = load_tasks("demo", limit=6)
    moods[tasks[2].task_id] = CostLimitError("The limit of $1 is reached.")

    with pytest.raises(CostLimitError, match=r"The limit of \$1 is reached\."):
        talk_about(tasks, online, tmp_path / "talks.jsonl")


def test_users_that_all_fail_or_hang_end_no_run(online, moods, tmp_path, caplog):
    tasks = load_tasks("demo", limit=40)
    moods.update(dict.fromkeys((task.task_id for task in tasks), ServerError("down")))

    scores = measure(talk_about(tasks, online, tmp_path / "talks.jsonl"))

    assert scores == {"num_conversations": 0.0}
    assert "are left out. The last 20 conversations all ended as" in caplog.text
    assert "--resume" not in caplog.text

    moods.update(dict.fromkeys(moods))
    moods.update(dict.fromkeys((task.task_id for task in tasks[:2]), "silent"))
    scores = measure(talk_about(tasks, online, tmp_path / "talks.jsonl"))
    assert scores["num_conversations"] == 38


def test_an_evaluation_without_any_reward_ends_no_run_and_is_not_the_best(
    grpo_flags, tmp_path, monkeypatch, moods
):
    talk = OnlineTrainer._talk

    def fail_at_the_first_step(self, name, tasks):
        broken = name == "held_out-00001"
        moods.update({task.task_id: ServerError("down") if broken else None for task in tasks})
        return talk(self, name, tasks)

    monkeypatch.setattr(OnlineTrainer, "_talk", fail_at_the_first_step)
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    main(grpo_flags(user="moody", load_best_model_at_end=True, sample_steps=0, **every))

    log = read_metrics(tmp_path / "run")["log_history"]
    evaluations = [entry for entry in log if "eval_num_conversations" in entry]
    assert [entry["eval_num_conversations"] for entry in evaluations] == [0, 2]
    assert ["eval_reward" in entry for entry in evaluations] == [False, True]
    assert read_metrics(tmp_path / "run")["best_checkpoint"].endswith("checkpoint-2")
    files = {file.name for file in (tmp_path / "run/conversations").iterdir()}
    assert files == {f"held_out-{when}.jsonl" for when in ("00000", "00001", "00002", "after")}


def test_an_error_in_training_keeps_the_steps_that_ended_and_a_resume_equals_an_unbroken_run(
    grpo_flags, tmp_path, monkeypatch, caplog
):
    main(grpo_flags(eval_ratio=0, sample_steps=0, output_dir=tmp_path / "whole"))
    reward, calls = PolicyReward.__call__, []

    def fail_in_the_second_step(self, *args, **columns):
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("of a metric of one's own")
        return reward(self, *args, **columns)

    monkeypatch.setattr(PolicyReward, "__call__", fail_in_the_second_step)
    flags = grpo_flags(eval_ratio=0, sample_steps=0)
    with pytest.raises(KeyError, match="of one's own"):
        main(flags)

    assert "checkpoint-1 is kept. Go on with" in caplog.text
    main([*flags, "--resume_from_checkpoint", "true"])
    log = read_metrics(tmp_path / "run")["log_history"]
    assert [entry["step"] for entry in log if "reward" in entry] == [1, 2]
    assert_same_adapter(tmp_path / "whole", tmp_path / "run")


def test_a_cost_limit_in_the_last_evaluation_says_what_is_kept(grpo_flags, tmp_path, monkeypatch):
    talk = OnlineTrainer._talk

    def be_too_dear(self, name, tasks):
        if name == "held_out-after":
            raise CostLimitError("The limit is reached.")
        return talk(self, name, tasks)

    monkeypatch.setattr(OnlineTrainer, "_talk", be_too_dear)
    with pytest.raises(CostLimitError, match=r"reached\. The trained adapter is kept in .*run; on"):
        main(grpo_flags())

    assert (tmp_path / "run/adapter_model.safetensors").is_file()


def test_only_the_main_process_talks_with_users(monkeypatch):
    talked, sent = [], []
    monkeypatch.setattr(grpo_trainer, "broadcast_object_list", sent.append)

    for is_main in (True, False):
        trainer = SimpleNamespace(
            use_vllm=False,
            is_world_process_zero=lambda is_main=is_main: is_main,
            _talk=lambda name, tasks: talked.append(name) or {"reward": 1.0},
        )
        OnlineTrainer.talk(trainer, "held_out-00001", [])

    assert talked == ["held_out-00001"]
    assert sent == [[{"reward": 1.0}], [None]]


@pytest.mark.slow
def test_two_processes_train_online_and_leave_each_conversation_once(grpo_flags, tmp_path):
    flags = grpo_flags(
        ddp_backend="gloo",
        prompts="own_turns",
        max_turns=2,
        eval_strategy="steps",
        eval_steps=1,
        num_sample_replies=1,
    )
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    process = start(flags, launcher, "scripts/train_grpo.py")
    output = process.communicate(timeout=540)[0]

    assert process.returncode == 0, output
    metrics = read_metrics(tmp_path / "run")
    assert [metrics[when]["num_conversations"] for when in ("before", "after")] == [2, 2]
    folder = tmp_path / "run/conversations"
    lines = {file.name: len(file.read_text().splitlines()) for file in folder.iterdir()}
    assert lines == {
        "held_out-00000.jsonl": 2,
        "held_out-00001.jsonl": 2,
        "held_out-00002.jsonl": 2,
        "held_out-after.jsonl": 2,
        "sample-00002.jsonl": 1,
    }


def test_conversations_are_read_in_wandb_as_tables(grpo_flags, tmp_path):
    main(grpo_flags(report_to="wandb", max_steps=2, sample_steps=2, num_sample_replies=1))

    (files,) = (tmp_path / "run/wandb").glob("offline-run-*/files/media/table/conversations")
    tables = {file.name.split("_")[0]: json.loads(file.read_text()) for file in files.iterdir()}
    assert set(tables) == {"held", "sample"}
    assert tables["sample"]["columns"] == ["step", "task", "reward", "conversation"]
    ((step, _, reward, conversation),) = tables["sample"]["data"]
    assert step == 2
    assert isinstance(reward, float)
    assert "user: " in conversation


def test_a_comparison_says_how_many_conversations_each_side_has(tmp_path, capsys):
    before = {"reward": 0.5, "num_conversations": 32.0}
    after = {"reward": 0.6, "num_conversations": 5.0}
    facts = {"method": "grpo", "run_name": "r", "made_by": "by", "bundled": True}
    facts |= {"settings": {}, "data": {}, "messages": [], "template_options": {}, "end_ids": [2]}
    settings, _ = parse_args([])

    print_comparison(before, after)
    write_card(tmp_path, settings, facts, before, after, None)

    assert "32 and 5 conversations" in capsys.readouterr().out
    card = (tmp_path / "README.md").read_text()
    assert "| num_conversations | 32.0000 | 5.0000 |" in card


def test_a_run_that_starts_anew_takes_no_conversations_of_the_one_before(tmp_path):
    folder = tmp_path / "conversations"
    folder.mkdir()
    for name in ("held_out-00010.jsonl", "sample-00002.jsonl", "mine.jsonl"):
        (folder / name).touch()

    clear_folder(tmp_path)

    assert [file.name for file in folder.iterdir()] == ["mine.jsonl"]
