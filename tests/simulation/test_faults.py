"""simulate: one bad conversation, many bad ones, two processes, changed settings."""

import asyncio
import subprocess
import sys
import tracemalloc

import pytest

from collabllm.errors import IncompleteRunError, ServerError
from collabllm.provenance import RunHeader
from collabllm.simulation import Assistant, AssistantReply, RuleBasedUser, UserModel, simulate
from collabllm.simulation.transcripts import TranscriptWriter, read_transcripts
from collabllm.simulation.user_models import UserTurnResult
from collabllm.tasks import Task


class Failing(Assistant):
    """Raises for the tasks of a set, and answers the others."""

    def __init__(self, bad=(), error=None):
        self.bad, self.error, self.calls = set(bad), error or KeyError("x"), 0

    async def agenerate(self, messages, *, seed=None):
        self.calls += 1
        if not self.bad or messages[0]["content"] in self.bad:
            raise self.error
        return AssistantReply("noted")


def make_tasks(number):
    return [Task(f"t{i}", f"goal {i}", opening=f"goal {i}") for i in range(number)]


def talk(tasks, assistant, user=None, **settings):
    return simulate(
        tasks,
        assistant,
        user or (lambda task, seed: RuleBasedUser.from_task(task, seed=seed)),
        max_turns=1,
        progress=False,
        **settings,
    )


def test_one_unexpected_error_ends_one_conversation_of_400(tmp_path):
    records = list(talk(make_tasks(400), Failing({"goal 7"}), output=tmp_path / "t.jsonl"))

    ended = {r.task_id: str(r.result.termination_reason) for r in records}
    assert len(ended) == 400
    assert [task for task, reason in ended.items() if reason == "error"] == ["t7"]
    lines = {line["task_id"]: line for line in read_transcripts(tmp_path / "t.jsonl")}
    assert lines["t7"]["failed"]
    assert lines["t7"]["error"] == "KeyError: 'x'"


def test_a_user_that_cannot_be_made_ends_one_conversation():
    def user(task, seed):
        if task.task_id == "t3":
            raise RuntimeError("no such user")
        return RuleBasedUser.from_task(task, seed=seed)

    records = list(talk(make_tasks(10), Failing({"x"}), user))

    assert [r.result.error for r in records if r.result.error] == ["RuntimeError: no such user"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("x"), "20 conversations all ended as error; the last error: KeyError: 'x'"),
        (ServerError("http://x refused (401)."), "20 conversations all ended as server_error; "),
    ],
)
def test_a_batch_in_which_all_fail_stops_early_and_says_why(tmp_path, error, sentence):
    assistant = Failing(error=error)

    with pytest.raises(IncompleteRunError, match=sentence):
        list(talk(make_tasks(200), assistant, output=tmp_path / "t.jsonl", concurrency=4))

    assert assistant.calls <= 30
    assert len(list(read_transcripts(tmp_path / "t.jsonl"))) == assistant.calls


def test_too_large_a_share_of_unexpected_errors_stops_the_batch():
    bad = {f"goal {i}" for i in range(0, 200, 2)}

    with pytest.raises(IncompleteRunError, match="21 conversations ended by an unexpected error"):
        list(talk(make_tasks(200), Failing(bad), concurrency=1))


def test_a_conversation_may_have_a_deadline():
    class Silent(RuleBasedUser):
        async def agenerate(self, messages, *, seed=None):
            await asyncio.Event().wait()

    def user(task, seed):
        kind = Silent if task.task_id == "t1" else RuleBasedUser
        return kind.from_task(task, seed=seed)

    records = talk(make_tasks(3), Failing({"none"}), user, deadline_s=2)

    errors = {record.task_id: record.result.error for record in records}
    assert errors == {"t0": "", "t1": "it took over 2 s", "t2": ""}


def test_errors_may_be_allowed():
    assert len(list(talk(make_tasks(9), Failing(), fail_on_error=1.0))) == 9


def test_a_lone_surrogate_in_a_file_is_written(tmp_path):
    with TranscriptWriter(tmp_path / "t.jsonl") as writer:
        writer.write({"task_id": "a\ud800"})

    assert [line["task_id"] for line in read_transcripts(tmp_path / "t.jsonl")] == ["a?"]


def test_a_second_process_on_one_file_is_refused_and_a_dead_one_leaves_no_lock(tmp_path):
    path = tmp_path / "t.jsonl"
    code = (
        "import os, sys; from collabllm.simulation.transcripts import TranscriptWriter\n"
        f"w = TranscriptWriter({str(path)!r}, resume=True); print('open', flush=True)\n"
        "sys.stdin.readline(); os.kill(os.getpid(), 9)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    other.stdout.readline()

    with pytest.raises(OSError, match="another process writes it"):
        TranscriptWriter(path, resume=True)
    other.communicate("\n")
    TranscriptWriter(path, resume=True).close()

    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl"]


def test_a_resume_reads_line_by_line(tmp_path):
    path = tmp_path / "t.jsonl"
    text = "x" * 10_000
    with TranscriptWriter(path) as writer:
        for i in range(2_000):
            writer.write(
                {
                    "task_id": f"t{i}",
                    "rollout_idx": 0,
                    "failed": False,
                    "termination_reason": "max_turns",
                    "text": text,
                }
            )
    tracemalloc.start()

    with TranscriptWriter(path, resume=True) as writer:
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(writer.done) == writer.endings["max_turns"] == 2_000
    assert peak < 3_000_000, "20 MB are in the file"


def test_a_resumed_run_keeps_its_settings_and_remembers_what_it_spent(tmp_path):
    header = RunHeader(tmp_path / "h.json", {"temperature": 0.7, "pair": (1, 2)}, resume=False)
    header.write(0.25)

    again = RunHeader(tmp_path / "h.json", {"temperature": 0.7, "pair": (1, 2)}, resume=True)
    again.write(0.5)

    assert again.spent_usd == 0.25
    with pytest.raises(ValueError, match="temperature was 0.7 and is 1.0 now"):
        RunHeader(tmp_path / "h.json", {"temperature": 1.0, "pair": (1, 2)}, resume=True)
    assert RunHeader(tmp_path / "h.json", header._content["settings"], resume=True).spent_usd == (
        0.75
    )
    (tmp_path / "h.json").write_text('{"settings": {"temp')
    with pytest.raises(ValueError, match=r"h\.json: is damaged, not JSON .*put a whole copy"):
        RunHeader(tmp_path / "h.json", {}, resume=True)


class Silent:
    """Talks, but is no UserModel."""

    def generate(self, messages):
        return "hello"


class Marking(UserModel):
    """Returns what is no turn's marks, which the audit cannot read."""

    def __init__(self):
        super().__init__("", "goal")

    def generate(self, messages):
        return UserTurnResult("hello", slips=None)


@pytest.mark.parametrize("odd", [Silent(), Marking(), None])
def test_a_user_that_is_none_ends_one_conversation(odd):
    def user(task, seed):
        return odd if task.task_id == "t3" else RuleBasedUser.from_task(task, seed=seed)

    records = list(talk(make_tasks(10), Failing({"x"}), user))

    assert len(records) == 10
    assert [r.task_id for r in records if r.result.error] == ["t3"]


def test_an_assistant_whose_answers_run_out_ends_conversations_and_hangs_none():
    class Short:
        answers = iter(["one", "two"])

        def generate(self, messages):
            return next(self.answers)

    records = list(talk(make_tasks(4), Short(), concurrency=1))

    errors = [r.result.error for r in records]
    assert errors == ["", ""] + 2 * ["RuntimeError: StopIteration: an iterator had no more values."]
