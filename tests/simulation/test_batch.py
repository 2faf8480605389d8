"""simulate: faults, order, resume after a kill, separation of goals, interruption."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collabllm.event_loop import run
from collabllm.simulation import (
    Assistant,
    AssistantReply,
    OpenAIAssistant,
    OpenAIClient,
    OpenAIUserModel,
    RuleBasedUser,
    UsageLedger,
    simulate,
)
from collabllm.simulation.transcripts import TranscriptWriter, read_transcripts
from collabllm.tasks import Task, demo_tasks
from tests.fake_server import FakeServer, user_json

ROOT = Path(__file__).parents[2]


class EchoAssistant(Assistant):
    """Answers with the seed, at once."""

    async def agenerate(self, messages, *, seed=None):
        return AssistantReply(f"noted, {seed}", completion_tokens=2)


def sharded(task, seed):
    return RuleBasedUser.from_task(task, seed=seed)


def make_tasks(number):
    return [Task(f"t{i}", f"secret-goal-{i:04d} of nobody else") for i in range(number)]


def answer(body):
    """Play both sides; the user quotes its own goal's number, so that mix-ups would show."""
    text = body["messages"][0]["content"]
    if body["model"] == "user":
        goal = text[text.index("secret-goal-") :][:16]
        turns = text.count('"role": "user"')
        return user_json(
            f"about {goal[-4:]} [[END OF CHAT]]" if turns == 3 else f"need {goal[-4:]}"
        )
    return f"so, {len(body['messages'])} messages"


@pytest.mark.slow
def test_300_conversations_survive_a_20_percent_fault_rate(tmp_path):
    ledger = UsageLedger()
    with FakeServer(answer, fault_rate=0.2) as server:
        client = OpenAIClient(server.url, "k", ledger=ledger, max_retries=8, timeout_s=10.0)
        records = list(
            simulate(
                make_tasks(300),
                OpenAIAssistant("assistant", client=client),
                lambda task, seed: OpenAIUserModel(
                    "", task.single_turn_prompt, "user", client=client
                ),
                max_turns=4,
                concurrency=48,
                output=tmp_path / "t.jsonl",
                progress=False,
            )
        )

    lines = list(read_transcripts(tmp_path / "t.jsonl"))
    assert len(lines) == len(records) == 300
    assert len({line["task_id"] for line in lines}) == 300
    reasons = {line["termination_reason"] for line in lines}
    assert reasons <= {"user_satisfied", "user_unparseable", "assistant_empty", "server_error"}
    assert sum(line["termination_reason"] == "user_satisfied" for line in lines) > 280
    assert min(server.injected.values()) > 5
    late, used = 0, ledger.by_role()
    for role in ("user", "assistant"):
        # On a busy machine an answer may be sent in full and yet come after the time-out.
        late += server.delivered[role, "requests"] - used[role].requests
        for name in ("requests", "prompt_tokens", "completion_tokens"):
            assert 0.9 * server.delivered[role, name] < getattr(used[role], name)
            assert getattr(used[role], name) <= server.delivered[role, name]
    broken = sum(server.injected[fault] for fault in ("drop", "stall", "invalid_body"))
    assert late + broken <= used["user"].unanswered + used["assistant"].unanswered


def test_200_hidden_goals_stay_apart_and_out_of_the_assistants_sight():
    with FakeServer(answer) as server:
        client = OpenAIClient(server.url, "k")
        records = list(
            simulate(
                make_tasks(200),
                OpenAIAssistant("assistant", client=client),
                lambda task, seed: OpenAIUserModel(
                    "", task.single_turn_prompt, "user", client=client
                ),
                max_turns=3,
                concurrency=200,
                progress=False,
            )
        )

    seen = [body for body in server.requests if body["model"] == "assistant"]
    assert len(seen) == 600
    assert not any("secret-goal-" in json.dumps(body) for body in seen)
    for record in records:
        own = record.goal[12:16]
        said = [m["content"] for m in record.result.messages if m["role"] == "user"]
        assert said == [f"need {own}"] * 3


def test_results_depend_neither_on_order_nor_on_concurrency():
    def run(tasks, concurrency):
        records = simulate(
            tasks,
            EchoAssistant(),
            sharded,
            max_turns=3,
            num_rollouts=2,
            concurrency=concurrency,
            seed=5,
            progress=False,
        )
        return {(r.task_id, r.rollout_idx): r.result.messages for r in records}

    tasks = demo_tasks()[:8]

    assert run(tasks, 1) == run(tasks[::-1], 16)
    assert run(tasks, 1)[tasks[0].task_id, 0] != run(tasks, 1)[tasks[0].task_id, 1]


def test_results_stream_out_and_closing_stops_the_rest(tmp_path):
    records = simulate(
        demo_tasks(),
        EchoAssistant(),
        sharded,
        max_turns=2,
        concurrency=2,
        output=tmp_path / "t.jsonl",
        progress=False,
    )

    next(records)
    records.close()

    assert 1 <= len(list(read_transcripts(tmp_path / "t.jsonl"))) < 64


def test_the_cost_limit_leaves_a_file_that_can_be_resumed(tmp_path):
    ledger = UsageLedger(max_cost_usd=0.5, prices={"user": (1000.0, 1000.0)})
    path = tmp_path / "t.jsonl"
    with FakeServer(answer) as server:

        def run(client, resume):
            return list(
                simulate(
                    make_tasks(20),
                    EchoAssistant(),
                    lambda task, seed: OpenAIUserModel(
                        "", task.single_turn_prompt, "user", client=client
                    ),
                    max_turns=1,
                    concurrency=2,
                    output=path,
                    resume=resume,
                    progress=False,
                )
            )

        run(OpenAIClient(server.url, "k", ledger=ledger), False)
        stopped = len(list(read_transcripts(path)))
        run(OpenAIClient(server.url, "k"), True)

    assert 0 < stopped < 20
    assert len({line["task_id"] for line in read_transcripts(path)}) == 20
    assert len(list(read_transcripts(path))) == 20


SCRIPT = """
import asyncio, sys
from collabllm.simulation import Assistant, AssistantReply, RuleBasedUser, simulate
from collabllm.tasks import demo_tasks

class Slow(Assistant):
    async def agenerate(self, messages, *, seed=None):
        await asyncio.sleep(0.05 if "resume" in sys.argv else 0.5)  # ends long after the kill
        return AssistantReply("noted")

tasks = demo_tasks()[:160]
for record in simulate(tasks, Slow(), lambda t, s: RuleBasedUser.from_task(t, seed=s),
                       max_turns=2, concurrency=4, output=sys.argv[1], resume="resume" in sys.argv,
                       progress=False):
    print("done", flush=True)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_resumes_to_a_complete_file_without_duplicates(tmp_path, kill):
    path = tmp_path / "t.jsonl"
    command = [sys.executable, "-c", SCRIPT, str(path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    for _ in range(10):
        process.stdout.readline()
    os.kill(process.pid, kill)
    process.wait()
    kept = path.read_text()
    assert 9 <= len(kept.splitlines()) < 160
    path.write_text(kept + '{"task_id": "torn')

    subprocess.run([*command, "resume"], check=True, capture_output=True, cwd=ROOT)

    ids = [line["task_id"] for line in read_transcripts(path)]
    assert sorted(ids) == sorted(task.task_id for task in demo_tasks()[:160])
    assert path.read_text().startswith(kept.splitlines()[0])


def test_failed_conversations_run_again_on_resume(tmp_path):
    lines = [
        {"task_id": "a", "rollout_idx": 0, "failed": True, "termination_reason": "error"},
        {"task_id": "b", "rollout_idx": 0, "failed": False, "termination_reason": "max_turns"},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    writer = TranscriptWriter(path, resume=True)

    assert writer.done == {("b", 0)}
    assert [line["task_id"] for line in read_transcripts(path)] == ["b"]


def test_outputs_that_cannot_work_are_refused_before_work_starts(tmp_path, monkeypatch):
    (tmp_path / "t.jsonl").write_text('{"task_id": "a"}\n')
    with pytest.raises(FileExistsError, match="go on with --resume"):
        TranscriptWriter(tmp_path / "t.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        TranscriptWriter(tmp_path / "file/t.jsonl")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 1_000_000}))
    with pytest.raises(OSError, match="only 1 MB are free"):
        TranscriptWriter(tmp_path / "new.jsonl")


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "t.jsonl").write_text('nonsense\n{"task_id": "a"}\n')

    with pytest.raises(ValueError, match="t.jsonl line 1: not a record"):
        list(read_transcripts(tmp_path / "t.jsonl"))


def test_two_tasks_of_one_id_are_refused():
    with pytest.raises(ValueError, match="used twice: t0"):
        simulate(make_tasks(1) * 2, EchoAssistant(), sharded, max_turns=1)


def test_seeds_are_sent_unless_that_is_off():
    with FakeServer(lambda body: "ok") as server:
        for seeds in (True, False):
            assistant = OpenAIAssistant("m", server.url, "key", seeds=seeds)
            run(assistant.agenerate([{"role": "user", "content": "hi"}], seed=5))

    assert [request.get("seed") for request in server.requests] == [5, None]


def test_load_lora_posts_to_the_server_and_uses_the_adapter():
    with FakeServer(lambda body: "ok") as server:
        assistant = OpenAIAssistant("base", server.url, "key-1")
        assistant.load_lora("mine", "/adapters/mine")
        assistant.generate([{"role": "user", "content": "hi"}])

    assert server.headers[0]["path"] == "/v1/load_lora_adapter"
    assert server.requests[0] == {"lora_name": "mine", "lora_path": "/adapters/mine"}
    assert server.requests[1]["model"] == "mine"
