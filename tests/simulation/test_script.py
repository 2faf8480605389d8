"""scripts/simulate_chats.py, the terminal conversation, and the notebook."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from collabllm.settings import parse_settings
from collabllm.simulation import UserTurnResult, simulate_chats
from collabllm.simulation.settings import SimulationSettings
from collabllm.simulation.terminal import interactive_rollout
from collabllm.simulation.transcripts import read_transcripts
from scripts.simulate_chats import main
from tests.fake_server import FakeServer, user_json
from tests.simulation.test_simulator import QueueAssistant, QueueUser

ROOT = Path(__file__).parents[2]


def test_two_servers_and_a_task_file(tmp_path, capsys):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"single_turn_prompt": "goal one"}\n{"single_turn_prompt": "goal two"}\n')
    with FakeServer(
        lambda body: "reply" if body["model"] == "a" else user_json("message")
    ) as server:
        main(
            f"--assistant_base_url {server.url} --assistant_model a --user openai --user_model u "
            f"--user_base_url {server.url} --tasks {tasks} --max_turns 2 --num_rollouts 2 "
            f"--num_traits 2 --user_max_tokens 99 --output {tmp_path}/t.jsonl".split()
        )

    asked = {body["max_tokens"] for body in server.requests if body["model"] == "u"}
    assert asked == {99, 16}, "16 is the preflight's"
    lines = list(read_transcripts(tmp_path / "t.jsonl"))
    assert len(lines) == 4
    assert [m["role"] for m in lines[0]["messages"]] == ["system", *["user", "assistant"] * 2]
    assert lines[0]["termination_reason"] == "max_turns"
    assert lines[0]["prompt_hash"]
    assert (lines[0]["assistant"], lines[0]["user"]) == ("a", "u")
    output = capsys.readouterr().out
    assert "max_turns" in output
    assert "user: 9 requests" in output


def test_a_multi_turn_dataset_gives_its_goals(twenty_questions, tmp_path):
    with FakeServer(lambda body: "reply") as server:
        main(
            f"--assistant_base_url {server.url} --assistant_model a --tasks {twenty_questions} "
            f"--num_tasks 3 --max_turns 1 --output {tmp_path}/t.jsonl".split()
        )

    goals = {line["single_turn_prompt"] for line in read_transcripts(tmp_path / "t.jsonl")}
    assert len(goals) == 3
    assert all(goal.startswith("The answer is:") for goal in goals)


def test_an_existing_output_and_unknown_flags_are_refused(tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text('{"task_id": "a"}\n')

    with pytest.raises(FileExistsError, match="use --resume"):
        main(["--output", str(tmp_path / "t.jsonl")])
    with pytest.raises(SystemExit):
        main(["--max_turn", "3"])
    assert "did you mean --max_turns or" in capsys.readouterr().err


def test_the_demo_configuration_names_only_known_flags():
    file = str(ROOT / "configs/demo_simulate.yaml")
    settings = parse_settings(SimulationSettings, ["--config", file, "--seed", "4"])

    assert (settings.user, settings.max_turns, settings.seed) == ("sharded", 3, 4)


def test_it_is_a_function_of_three_lines_that_can_be_called_again(tmp_path):
    with FakeServer(lambda body: "reply") as server:
        given = {"assistant_model": "a", "assistant_base_url": server.url, "max_turns": 1}
        records = list(simulate_chats(**given, num_tasks=2, output_dir=str(tmp_path)))
        again = simulate_chats(**given, num_tasks=3, output_dir=str(tmp_path), resume=True)

    assert [record.result.messages[-1]["content"] for record in records] == ["reply"] * 2
    assert len(list(again)) == len(again) == 3
    assert len(list(read_transcripts(tmp_path / "transcripts.jsonl"))) == 3


def test_a_wrong_argument_is_named_with_what_it_may_be():
    with pytest.raises(TypeError, match="num_task is not known; did you mean num_tasks"):
        simulate_chats(num_task=2)
    with pytest.raises(ValueError, match="num_tasks must be at least 1, got 0"):
        simulate_chats(num_tasks=0)
    with pytest.raises(ValueError, match="there is no kind 'opnai'; known: native, openai"):
        simulate_chats(user="opnai")
    with pytest.raises(ValueError, match="--cache and --replay exclude each other"):
        simulate_chats(cache="a", replay="b")


def test_what_cannot_work_is_said_before_anything_runs(tmp_path):
    (tmp_path / "notes.txt").write_text("these are notes, and no database")
    model = {"assistant_model": "a", "output_dir": str(tmp_path / "o")}

    with pytest.raises(ValueError, match="notes.txt is no cache of server answers"):
        simulate_chats(**model, replay=str(tmp_path / "notes.txt"))
    with pytest.raises(ValueError, match="--prices: m needs dollars for a million tokens"):
        simulate_chats(**model, prices={"m": 1})
    with pytest.raises(ValueError, match=f"--hf_model_path {tmp_path} cannot be loaded: "):
        simulate_chats(hf_model_path=str(tmp_path), output_dir=str(tmp_path / "o"))


def talk(monkeypatch, lines, assistant=None, user=None, **settings):
    """Pipe lines into a conversation; return it and what was printed."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    console = Console(file=io.StringIO(), width=80)
    messages = interactive_rollout(
        assistant or QueueAssistant(), user or QueueUser(), console=console, **settings
    )
    return [m["content"] for m in messages], console.file.getvalue()


def test_a_person_may_take_either_side(monkeypatch):
    messages, printed = talk(monkeypatch, ["", "", "my own words", "my reply", "/quit"])

    assert messages == ["message 1", "reply 1", "my own words", "my reply"]
    assert "my own words" in printed


def test_undo_takes_a_message_back_and_the_end_of_input_ends(monkeypatch):
    messages, printed = talk(monkeypatch, ["hello", "/undo", "/undo", "/what", "again"])

    assert messages == ["again"]
    assert "nothing to take back" in printed
    assert "Unknown command /what" in printed


def test_the_conversation_ends_after_max_turns_and_when_the_user_ends_it(monkeypatch):
    short, _ = talk(monkeypatch, [""] * 9, max_turns=1)
    ended, printed = talk(
        monkeypatch, [""] * 9, user=QueueUser("hi", UserTurnResult("bye", is_terminal=True))
    )

    assert short == ["message 1", "reply 1"]
    assert ended == ["hi", "reply 1"]
    assert "The user ends: bye" in printed


def test_the_notebook_runs_top_to_bottom_and_every_cell_twice(monkeypatch, tmp_path):
    notebook = json.loads((ROOT / "notebooks/simulate.ipynb").read_text())
    cells = [c["source"] for c in notebook["cells"] if c["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    names: dict = {}

    for source in cells:
        for _ in range(2):
            exec(compile("".join(source), "cell", "exec"), names)

    assert len(names["records"]) == 4
    assert len(list(names["transcripts"])) == 2
    assert (tmp_path / "transcripts.jsonl").read_text().count("\n") == 4
    assert (tmp_path / "simulation/transcripts.jsonl").read_text().count("\n") == 2
