"""An evaluation whose process is killed: what is kept, what its report says, how it goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from collabllm.evaluation import read_results
from collabllm.servers.kept_usage import keep_usage, read_usage
from collabllm.servers.usage import Usage, UsageLedger
from scripts.evaluate import main
from scripts.view import main as view
from tests.evaluation.test_run import answer, flags, read
from tests.fake_server import FakeServer

ROOT = Path(__file__).parents[2]
NUM_CONVERSATIONS = 2 * 2 * 2 * 6  # arms, users, openings, tasks


def kill_in_the_middle(words, file, number):
    """Run an evaluation until a file has so many lines, and end it without a word."""
    command = [sys.executable, "scripts/evaluate.py", *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not file.is_file() or file.read_text().count("\n") < number:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)


def requests_of(results):
    return sum(counts["requests"] for counts in results.usage.values())


def test_an_evaluation_killed_in_the_middle_goes_on_without_loss_or_doubles(tmp_path):
    folder = tmp_path / "e"
    with FakeServer(answer, delay_s=0.05) as server:
        users = ["sharded", f"name=llm,kind=openai,model=user,base_url={server.url}"]
        words = flags(server, folder, "--user", users[0], "--user", users[1], "--concurrency", "4")
        kill_in_the_middle(words, folder / "transcripts/talker--sharded.jsonl", 3)
        time.sleep(0.2)  # what was under way at the server
        delivered = Counter(server.delivered)
        used = read_usage(folder)
        view([str(folder)])
        part = (folder / "report.html").read_text()
        files = list((folder / "transcripts").glob("*.jsonl"))
        kept = [line for file in files for line in file.read_text().splitlines(keepends=True)]
        with files[0].open("a") as file:
            file.write('{"task_id": "torn')
        main([*words, "--resume"])

    by_role = used.by_role()
    num_read = sum(usage.requests for usage in by_role.values())
    num_delivered = sum(n for (_, what), n in delivered.items() if what == "requests")
    assert num_read <= num_delivered <= num_read + used.num_unanswered
    assert used.num_unanswered <= 4, "as many as run at once"
    head = part[part.index("<h1>") : part.index('<table class="answer"')]
    assert "incomplete" in head
    said = re.search(r"This evaluation is incomplete: (\d+) of 48 conversations are missing", head)
    assert NUM_CONVERSATIONS - len(kept) <= int(said[1]) < NUM_CONVERSATIONS
    assert "talker with user llm has 0 of 12" in head
    results = read_results(folder)
    assert results.complete
    assert results.notes == []
    files = list((folder / "transcripts").glob("*.jsonl"))
    lines = [line for file in files for line in read(file)]
    assert len(lines) == NUM_CONVERSATIONS
    places = Counter((r["assistant"], r["user"], r["task_id"], r["rollout_idx"]) for r in lines)
    assert set(places.values()) == {1}
    scores = read(folder / "scores.jsonl")
    places = Counter((s["arm"], s["user"], s["task_id"], s["rollout_idx"]) for s in scores)
    assert (len(places), set(places.values())) == (NUM_CONVERSATIONS, {1})
    whole = "".join(file.read_text() for file in files)
    assert all(line in whole for line in kept)
    total = sum(n for (_, what), n in server.delivered.items() if what == "requests")
    assert requests_of(results) <= total <= requests_of(results) + results.num_unanswered


def test_what_a_killed_addition_leaves_is_not_shown_as_complete(tmp_path):
    folder = tmp_path / "e"
    with FakeServer(answer) as server:
        main(flags(server, folder))
        server.delay_s = 0.1
        words = flags(server, folder, "--resume", "--concurrency", "2", arms=("third",))
        kill_in_the_middle(words, folder / "transcripts/third--sharded.jsonl", 2)
        view([str(folder)])
        page = (folder / "report.html").read_text()
        main([*words[:6], "--resume"])

    assert re.search(r"incomplete: \d+ of 36 conversations are missing \(third with user", page)
    assert read_results(folder).complete


def test_usage_is_added_up_over_runs_also_when_they_are_killed(tmp_path):
    for number in (1, 2, 3):
        prices = {"m": (1000.0, 0.0)} if number == 1 else None  # kept for those after it
        ledger = UsageLedger(prices=prices)
        run = keep_usage(tmp_path, ledger)
        run.__enter__()
        who = "assistant", "m", f"http://{number}"
        ledger.count_sent(*who)
        ledger.count_answered(*who, 500, 7)
        ledger.count_sent(*who)  # and nothing after it: the process is gone

        found = read_usage(tmp_path)
        assert found.by_role() == {
            "assistant": Usage(number, 500 * number, 7 * number, unanswered=number)
        }
        assert found.num_unanswered == number
        assert found.cost_usd == ledger.cost_usd == 0.5 * number
    assert [name for name in found.sums() if "server" in name] == [
        "server http://1",
        "server http://2",
        "server http://3",
    ]
    run.__exit__(None, None, None)
    assert read_usage(tmp_path).sums() == found.sums()
    assert [file.name for file in tmp_path.iterdir()] == ["usage.json"]


def test_an_evaluation_prints_what_it_used_by_role_and_by_server(tmp_path, capsys):
    with FakeServer(answer) as server, FakeServer(answer) as second:
        other = f"name=talker,model=talker,base_url={second.url}"
        main(flags(server, tmp_path, "--arm", other, arms=("asker",)))

    printed = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert "assistant: " in printed
    for one in (server, second):
        number = len(one.requests)
        assert f"server {one.url}: {number} requests, " in printed
        assert f'server {one.url}</th><td class="number">{number}</td>' in page


def test_a_run_that_begins_anew_counts_from_nothing(tmp_path):
    killed = keep_usage(tmp_path, first := UsageLedger())
    killed.__enter__()
    first.add("assistant", "m", 900, 0)

    with keep_usage(tmp_path, second := UsageLedger(), is_new=True):
        second.add("assistant", "m", 1, 0)

    assert read_usage(tmp_path).by_role() == {"assistant": Usage(1, 1, 0)}
    assert [file.name for file in tmp_path.iterdir()] == ["usage.json"]


def test_a_limit_counts_what_a_killed_run_spent(tmp_path):
    with keep_usage(tmp_path, first := UsageLedger(prices={"m": (1000.0, 0.0)})):
        first.add("assistant", "m", 900, 0)
    limited = UsageLedger(1.0, prices={"m": (1000.0, 0.0)})

    with keep_usage(tmp_path, limited):
        limited.check_limit("m")
        limited.add("assistant", "m", 100, 0)
        with pytest.raises(Exception, match=r"\$1 is reached \(\$1.0000 spent\)"):
            limited.check_limit("m")
