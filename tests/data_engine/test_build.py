"""Conversations grow by their best candidate, survive faults and kills, and train as they are."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from collabllm.data_engine import GrowthSettings, build_dataset, grow_conversations
from collabllm.data_engine.grow import to_last_sentence
from collabllm.data_engine.rows import DatasetWriter, to_rows
from collabllm.data_processing import load_multiturn_dataset, multiturn_dataset_to_sft
from collabllm.errors import IncompleteRunError, ServerError
from collabllm.files import sort_json_lines
from collabllm.rewards import RewardSettings
from collabllm.servers.kept_usage import read_usage
from collabllm.simulation import (
    Assistant,
    AssistantReply,
    OpenAIAssistant,
    OpenAIClient,
    OpenAIUserModel,
    RuleBasedUser,
)
from collabllm.simulation.user_models import UserTurnResult
from collabllm.tasks import Task
from scripts.build_dataset import main
from tests.fake_server import FAULTS, FakeServer, user_json
from tests.rewards.test_multiturn import PARTY
from tests.training.conftest import save_tiny_model

ROOT = Path(__file__).parents[2]
WEIGHTS = {"facts_elicited": 1.0, "over_asking": -0.5}


PLAN = "Plan for the 6th birthday, 12 guests: treasure hunt, cake with candles, music, goodbye."


class PartyAssistant(Assistant):
    """Asks under the proactive prompt, guesses otherwise; finishes when it knows all."""

    def __init__(self):
        self.systems = []

    async def agenerate(self, messages, *, seed=None):
        self.systems.append(messages[0]["content"])
        said = " ".join(m["content"] for m in messages if m["role"] == "user")
        if "6th" in said and "12" in said:
            return AssistantReply(PLAN)
        if "Before you do anything" in messages[0]["content"]:
            return AssistantReply("How old is the child?" if "6th" not in said else "How many?")
        return AssistantReply("Here is a plan for 20 guests.")

    def count_tokens(self, text):
        return len(text.split())


def sharded(task, seed):
    return RuleBasedUser.from_task(task, seed=seed)


def settings(**changes):
    reward = RewardSettings(WEIGHTS, **changes.pop("reward", {"window": 1, "num_samples": 2}))
    return GrowthSettings(reward, **{"num_candidates": 2, "max_turns": 3, **changes})


def test_the_best_candidate_goes_on_with_a_user_message_of_one_of_its_futures():
    groups = list(grow_conversations([PARTY], PartyAssistant(), sharded, settings()))

    assert [[c.estimate.reply for c in group.candidates] for group in groups] == [
        ["Here is a plan for 20 guests.", "How old is the child?"],
        ["Here is a plan for 20 guests.", "How many?"],
        [PLAN],
    ]
    assert [group.chosen for group in groups] == [1, 1, 0]
    assert [group.candidates[1].proactive for group in groups[:2]] == [True, True]
    assert [m["content"] for m in groups[2].prompt] == [
        "Plan a party.",
        "How old is the child?",
        "It's a 6th birthday.",
        "How many?",
        "There will be 12 guests.",
    ]
    assert groups[2].lost == {"same as another candidate": 1}
    assert [group.termination_reason for group in groups] == ["", "", "max_turns"]
    assert groups[0].candidates[0].estimate.value == 0.0
    assert groups[0].candidates[1].estimate.value == 0.5


def test_a_user_who_is_satisfied_ends_the_conversation():
    groups = list(grow_conversations([PARTY], PartyAssistant(), sharded, settings(max_turns=9)))

    assert len(groups) == 3
    assert groups[-1].termination_reason == "user_satisfied"


@pytest.mark.parametrize("window", [0, 1])
def test_a_user_who_gives_up_is_not_content(window):
    class Parrot(PartyAssistant):
        async def agenerate(self, messages, *, seed=None):
            return AssistantReply(f"Hmm, {len(messages)}.")

    flat = settings(reward={"window": window}, max_turns=9)

    groups = list(grow_conversations([PARTY], Parrot(), sharded, flat))

    assert groups[-1].termination_reason == "user_gave_up"


@pytest.mark.parametrize(("num_bad", "stops"), [(2, False), (4, True)])
def test_single_unexpected_errors_end_their_conversation_and_many_end_the_build(num_bad, stops):
    def odd(task, seed):
        if int(task.task_id) < num_bad:
            raise KeyError("x")
        return sharded(PARTY, seed)

    tasks = [replace(PARTY, task_id=str(idx)) for idx in range(8)]
    groups = grow_conversations(tasks, PartyAssistant(), odd, settings(), concurrency=1)
    if stops:
        with pytest.raises(KeyError):
            list(groups)
        return
    failed = [group.task.task_id for group in groups if "KeyError: 'x'" in group.lost]

    assert failed == ["0", "1"]


def test_a_user_who_leaves_before_any_reply_has_failed():
    class Leaving(RuleBasedUser):
        async def agenerate(self, messages, *, seed=None):
            return UserTurnResult("bye", is_terminal=True)

    (group,) = grow_conversations(
        [PARTY], PartyAssistant(), lambda task, seed: Leaving.from_task(task), settings()
    )

    assert group.lost == {"SimulationError: the simulated user left before any reply": 1}


def test_without_a_window_the_user_is_asked_for_the_next_message():
    flat = settings(reward={"window": 0}, max_turns=9)

    groups = list(grow_conversations([PARTY], PartyAssistant(), sharded, flat))

    assert groups[-1].termination_reason == "user_gave_up", "the flat reward prefers a guess"
    assert all(len(c.estimate.futures) == 1 for group in groups for c in group.candidates)


def test_a_share_of_the_candidates_is_proactive_and_futures_never_are():
    assistant = PartyAssistant()
    few = settings(num_candidates=4, proactive_share=0.5, max_turns=1)

    list(grow_conversations([PARTY], assistant, sharded, few))

    proactive = sum("Before you do anything" in system for system in assistant.systems)
    assert proactive == 2
    assert len(assistant.systems) > 4


def test_the_rows_are_the_dataset_format_and_train_as_one_row_a_conversation(tmp_path):
    with DatasetWriter(tmp_path / "train.jsonl") as writer:
        for group in grow_conversations([PARTY], PartyAssistant(), sharded, settings()):
            writer.write(*to_rows(group))

    dataset = load_multiturn_dataset(tmp_path / "train.jsonl")
    (row,) = multiturn_dataset_to_sft(dataset, system_prompt=None)["train"]

    assert len(dataset) == 5
    assert [m["content"] for m in row["messages"] if m["weight"] == 1] == [
        "How old is the child?",
        "How many?",
        PLAN,
    ]
    first = dataset[1]
    assert first["rewards"]["facts_elicited"] == [0.5, 0.5]
    assert first["rewards"]["total"] == [0.5, 0.5]
    assert first["sessions"][0][0] == {"role": "assistant", "content": "How old is the child?"}
    assert first["standard_error"] == 0.0


class DeadAssistant(Assistant):
    async def agenerate(self, messages, *, seed=None):
        raise ServerError("down for good")


def test_a_turn_without_candidates_is_a_failure_and_no_row():
    (group,) = grow_conversations([PARTY], DeadAssistant(), sharded, settings())

    assert group.candidates == []
    assert group.lost == {"ServerError: down for good": 2}
    assert to_rows(group) == []


def test_two_tasks_with_one_id_are_refused():
    with pytest.raises(ValueError, match="1 task ids are used twice \\(party\\)"):
        list(grow_conversations([PARTY, PARTY], PartyAssistant(), sharded, settings()))


class CutAssistant(PartyAssistant):
    """Is cut in the middle of its second sentence, or its first."""

    text = "How old is the child? And how many gue"

    async def agenerate(self, messages, *, seed=None):
        return AssistantReply(self.text, finish_reason="length")


def test_a_cut_reply_is_lost_or_kept_up_to_its_last_whole_sentence():
    (lost,) = grow_conversations([PARTY], CutAssistant(), sharded, settings())
    assert lost.lost == {"cut by the token limit": 2}

    kept = settings(keep_cut_replies=True, max_turns=1)
    (group,) = grow_conversations([PARTY], CutAssistant(), sharded, kept)

    assert [c.estimate.reply for c in group.candidates] == ["How old is the child?"]
    early = CutAssistant()
    early.text = "How old is the chi"
    (without,) = grow_conversations([PARTY], early, sharded, kept)
    assert (without.candidates, without.lost) == ([], {"cut by the token limit": 2})
    assert to_last_sentence("no end at all") == ""
    assert to_last_sentence('He said "yes." And th') == 'He said "yes."'
    assert to_last_sentence("It costs 3.5 euros. Then 4.") == "It costs 3.5 euros. Then 4."


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="num_candidates must be at least 1, got 0"):
        settings(num_candidates=0)
    with pytest.raises(ValueError, match=r"proactive_share must be in \[0, 1\], got 2"):
        settings(proactive_share=2)


def answer(body):
    """Play assistant, user and judge; the user ends after three messages."""
    text = body["messages"][0]["content"]
    if body["model"] == "judge":
        return '{"score": 1}'
    if body["model"] == "user":
        turns = text.count('"role": "user"')
        return user_json("thanks [[END OF CHAT]]" if turns >= 3 else f"message {turns}")
    return f"reply {body.get('seed', 0) % 1000} to {len(body['messages'])}"


@pytest.mark.slow
def test_a_fifth_of_faulty_answers_loses_nothing_doubles_nothing_and_scores_nothing_zero(tmp_path):
    tasks = [Task(f"t{i}", f"goal number {i}") for i in range(25)]
    from collabllm.rewards import Judge, MetricTools

    # An assistant that answers nothing twice has been silent, which gets the floor: no fault.
    faults = [fault for fault in FAULTS if fault != "empty"]
    with FakeServer(answer, fault_rate=0.2, faults=faults) as server:
        client = OpenAIClient(server.url, "k", max_retries=8, timeout_s=10.0)
        build = GrowthSettings(
            RewardSettings({"interactivity": 1.0}, window=1, num_samples=2),
            num_candidates=2,
            max_turns=3,
        )
        groups = list(
            grow_conversations(
                tasks,
                OpenAIAssistant("assistant", client=client),
                lambda task, seed: OpenAIUserModel(
                    "", task.single_turn_prompt, "user", client=client
                ),
                build,
                tools=MetricTools(judge=Judge(client, "judge")),
                concurrency=25,
            )
        )

    assert sum(server.injected.values()) > 100
    rows = [row for group in groups for row in to_rows(group)]
    turns = Counter((group.task.task_id, len(group.prompt)) for group in groups)
    assert max(turns.values()) == 1
    assert {group.task.task_id for group in groups} == {task.task_id for task in tasks}
    assert {row["score"] for row in rows} == {1.0}
    values = [value for row in rows for value in row["rewards"]["interactivity"]]
    assert set(values) <= {1.0, None}
    scored = len(rows)
    lost = sum(n for group in groups for n in group.lost.values())
    # Without a prompt the opening was lost, before there were candidates.
    assert scored + lost == sum(2 if group.prompt else 1 for group in groups)
    ended = {group.task.task_id for group in groups if group.termination_reason}
    assert len(ended) >= 23


def flags(server, folder, **changes):
    settings = {
        "assistant_base_url": server.url,
        "assistant_model": "assistant",
        "user": "openai",
        "user_base_url": server.url,
        "user_model": "user",
        "tasks": "demo",
        "num_tasks": 6,
        "num_candidates": 2,
        "num_samples": 2,
        "window": 1,
        "max_turns": 3,
        "weights": '{"repetition": -1.0, "facts_elicited": 1.0}',
        "token_penalty": 0.001,
        "output": folder,
        **changes,
    }
    words = []
    for name, value in settings.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def read(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_the_script_writes_dataset_card_and_state(tmp_path, capsys):
    folder = tmp_path / "data"
    prices = '{"user": [1000, 1000], "assistant": [0, 0]}'
    with FakeServer(answer) as server:
        main(flags(server, folder, prices=prices))

    rows = read(folder)
    assert len({row["conv_id"] for row in rows}) == 6
    assert Counter(row["turn_id"] for row in rows) == {1: 12, 3: 12, 5: 12}
    card = (folder / "README.md").read_text()
    assert "6 conversations, 18 turns, 36\ncandidate replies" in card
    assert "data_files: train.jsonl" in card
    assert "| score |" in card
    assert "surely better than their worst (`--min_confidence`" in card
    assert "judge_interactivity" in card
    assert "- user: `" in card
    assert re.search(r"- total: \$[0-9.]+\n", card)
    assert "Cost: $" in capsys.readouterr().out
    assert json.loads((folder / "build.json").read_text())["spent_usd"] > 0
    with pytest.raises(FileExistsError, match="--resume"), FakeServer(answer) as server:
        main(flags(server, folder))


def test_a_build_is_a_function_of_three_lines_that_goes_on_when_called_again(tmp_path):
    with FakeServer(answer) as server:
        given = {"assistant_model": "assistant", "assistant_base_url": server.url, "window": 1}
        given |= {"weights": {"repetition": 1.0}, "num_samples": 1, "output_dir": str(tmp_path)}
        file = build_dataset(**given, num_tasks=1, max_turns=1)
        with pytest.raises(ValueError, match="max_turns was 1 and is 2 now"):
            build_dataset(**given, num_tasks=1, max_turns=2, resume=True)
        again = build_dataset(**given, num_tasks=2, max_turns=1, resume=True)

    assert file == again == tmp_path / "train.jsonl"
    assert len({row["conv_id"] for row in read(tmp_path)}) == 2


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="--weights: bleu needs a number, got '1'"):
        build_dataset(weights={"bleu": "1"})


def test_a_build_killed_in_the_middle_goes_on_without_loss_or_doubles(tmp_path):
    folder = tmp_path / "data"
    with FakeServer(answer, delay_s=0.2) as server:
        command = [sys.executable, "scripts/build_dataset.py", *flags(server, folder)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        file = folder / "train.jsonl"
        while not file.is_file() or file.read_text().count("\n") < 4:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = file.read_text()
        file.write_text(before + '{"prompt": [{"role": "us')  # what a torn write leaves
        main(flags(server, folder, resume=True))

    used = read_usage(folder)
    for role in ("assistant", "user"):
        counted = server.delivered[role, "requests"]
        found = used.by_role()[role]
        assert found.requests <= counted <= found.requests + found.unanswered
    assert (
        f"assistant: `{used.by_role()['assistant'].requests:,} requests"
        in (folder / "README.md").read_text()
    )
    assert 4 <= before.count("\n") < 36
    rows = read(folder)
    assert len(rows) == 36
    groups = Counter((row["conv_id"], row["turn_id"]) for row in rows)
    assert set(groups.values()) == {2}
    for line in before.splitlines():
        assert json.loads(line) in rows
    for conv_id in {row["conv_id"] for row in rows}:
        chosen = [row for row in rows if row["conv_id"] == conv_id and row["chosen"]]
        for earlier, later in pairwise(chosen):
            assert later["prompt"] == [
                *earlier["prompt"],
                {"role": "assistant", "content": earlier["completion"]},
                {"role": "user", "content": earlier["next_user"]},
            ]


def test_a_local_build_repeats_to_the_letter_whatever_shares_its_batches(tmp_path, monkeypatch):
    """In float32; in bf16 sums are rounded in an order that depends on the batch."""
    monkeypatch.setattr("collabllm.simulation.assistant.local.choose_dtype", lambda: torch.float32)
    # The tiny model ends no sentence, so that of a cut reply nothing would be kept.
    monkeypatch.setattr("collabllm.data_engine.grow.to_last_sentence", lambda text: text)
    model = save_tiny_model(tmp_path / "model")
    files = []
    for concurrency in (1, 6):
        folder = tmp_path / f"data_{concurrency}"
        words = (
            f"--tasks demo --hf_model_path {model} --user sharded --num_tasks 6 --num_candidates 3 "
            "--num_samples 2 --window 1 --max_turns 2 --max_new_tokens 12 --temperature 1 "
            "--keep_cut_replies "
            f"--concurrency {concurrency} --output {folder}"
        )
        main([*words.split(), "--weights", '{"facts_elicited": 1}'])
        files.append((folder / "train.jsonl").read_text())

    assert files[0] == files[1]
    rows = read(tmp_path / "data_6")
    assert len({row["completion"] for row in rows}) == len(rows) > 30  # an empty reply is lost
    assert rows == sorted(rows, key=lambda r: (r["conv_id"], r["turn_id"], r["candidate_idx"]))


def test_sorting_keeps_every_line_whole(tmp_path):
    file = tmp_path / "rows.jsonl"
    odd = '{"id": "b", "text": "line\u2028separator\u0085"}\n'
    file.write_text(odd + '{"id": "a", "text": ""}\n', encoding="utf-8")

    sort_json_lines(file, ["id"])

    assert file.read_text(encoding="utf-8") == '{"id": "a", "text": ""}\n' + odd
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_half_a_turn_group_is_cut_off(tmp_path):
    folder = tmp_path / "data"
    with FakeServer(answer) as server:
        main(flags(server, folder, num_tasks=1))
        lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
        (folder / "train.jsonl").write_text("".join(lines[:3]))
        main(flags(server, folder, num_tasks=1, resume=True))

    assert Counter(row["turn_id"] for row in read(folder)) == {1: 2, 3: 2, 5: 2}


def test_going_on_with_other_settings_is_refused(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path, num_tasks=1))

        with pytest.raises(ValueError, match="window was 1 and is 2 now"):
            main(flags(server, tmp_path, num_tasks=1, resume=True, window=2))


@pytest.mark.parametrize("again", [{}, {"num_tasks": 1}])
def test_going_on_after_a_goal_was_edited_is_refused_and_with_fewer_or_more_tasks_is_not(
    tmp_path, again
):
    def write_tasks(*goals):
        rows = [{"single_turn_prompt": goal, "opening": "Plan a party."} for goal in goals]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    path, data = tmp_path / "tasks.jsonl", tmp_path / "data"
    with FakeServer(answer) as server:
        given = {"assistant_model": "assistant", "assistant_base_url": server.url, "window": 0}
        given |= {"weights": {"repetition": 1.0}, "max_turns": 1, "tasks": str(path)}
        given |= {"user": "sharded", "output_dir": str(data)}
        write_tasks("Party in Oslo", "Party in Rome")
        build_dataset(**given)
        write_tasks("Party in Oslo", "Party in Rome", "Party in Bonn")
        build_dataset(**given, resume=True, **again)
        before = (data / "train.jsonl").read_bytes()
        write_tasks("Party in Oslo", "Party in Paris")

        with pytest.raises(ValueError, match=r"about [12] tasks that are not among --tasks .*task"):
            build_dataset(**given, resume=True, **again)

    assert (data / "train.jsonl").read_bytes() == before


def test_the_cost_limit_stops_cleanly_and_the_build_can_go_on(tmp_path):
    prices = '{"user": [1000, 1000], "assistant": [0, 0]}'
    with FakeServer(answer) as server:
        with pytest.raises(IncompleteRunError) as stop:
            main(flags(server, tmp_path, prices=prices, max_cost=10, concurrency=1))
        stopped = read(tmp_path)
        main(flags(server, tmp_path, prices=prices, max_cost=10_000, resume=True))

    assert "The cost limit of $10 is reached" in str(stop.value)
    assert "A higher --max_cost goes on. Go on with the same call and resume" in str(stop.value)
    assert 0 < len(stopped) < 36
    assert len(read(tmp_path)) == 36


def test_a_failed_conversation_is_counted_once_whatever_became_of_its_candidates(tmp_path):
    def answer_badly(body):
        if body["model"] == "user":
            return user_json("Plan a party.")
        return ("And how", "length") if body.get("seed", 0) % 2 else ""

    with FakeServer(answer_badly) as server, pytest.raises(IncompleteRunError) as stop:
        main(flags(server, tmp_path, num_tasks=4, num_candidates=6))

    counts = [int(number) for number in re.findall(r"(\d+) conversations failed", str(stop.value))]
    assert sum(counts) == 4
    assert "cut by the token limit" in str(stop.value)
    assert "empty reply" in str(stop.value)


def test_a_plan_calls_no_server_and_a_lint_writes_nothing(tmp_path, capsys):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path / "data", plan=True, num_tasks=100))
        assert server.requests == []
        assert "100 tasks, 600 candidates" in capsys.readouterr().out
        main(flags(server, tmp_path / "data", lint=True))

    output = capsys.readouterr().out
    assert "Reward lint, 12 candidates" in output
    assert "WARNING: in 100% of the turns candidates are worth the same" in output
    assert "| honest | " in output
    assert "WARNING: as much as honest work is paid to: " in output
    assert not (tmp_path / "data").exists()


def test_a_dataset_is_pushed_once_at_the_end_to_a_private_repository(tmp_path, hub):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path, num_tasks=2, push_to_hub="ada/conversations"))

    (created,) = hub.created
    assert (created["name"], created["type"]) == ("conversations", "dataset")
    assert created.get("private", created.get("visibility") == "private")
    assert hub.files["train.jsonl"] == (tmp_path / "train.jsonl").read_bytes()
    assert "data_files: train.jsonl" in hub.files["README.md"].decode()
    assert all(str(tmp_path) not in text.decode() for text in hub.files.values())


def test_false_and_none_push_nothing_and_true_names_no_repository(tmp_path, hub):
    with FakeServer(answer) as server:
        for word in ("false", "None"):
            main(flags(server, tmp_path / word, num_tasks=1, push_to_hub=word))

    assert hub.created == []
    for word in ("true", True, "auto"):
        with pytest.raises(ValueError, match="give the name of the dataset's repository, such as"):
            build_dataset(push_to_hub=word, output_dir=str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_push_without_a_token_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)

    with FakeServer(answer) as server, pytest.raises(ValueError, match="--push_to_hub false") as e:
        main(flags(server, tmp_path / "data", num_tasks=1, push_to_hub="ada/talks"))

    assert "--push_to_hub true" not in str(e.value)


def test_the_card_names_models_that_the_cost_leaves_out(tmp_path):
    with FakeServer(answer) as server:
        main(flags(server, tmp_path, num_tasks=1))

    card = (tmp_path / "README.md").read_text()
    assert "- total: $0.0000, without assistant, user: no price is known (--prices)\n" in card
