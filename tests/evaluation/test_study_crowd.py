"""Forty people at once, by plain requests and in real browsers: nothing lost, nothing crossed.

The server is killed in the middle, pages are reloaded, buttons are clicked twice, people have two
tabs, and strangers try forged links.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx2 as httpx
import pytest

from collabllm.evaluation.study.store import open_study, read_answers
from collabllm.servers.process import free_port
from tests.browser import needs_browser, start_browser
from tests.evaluation.study_browsers import Browsers
from tests.evaluation.study_people import Participant
from tests.evaluation.test_study import make_study
from tests.pages import client_of


def free_address():
    port = free_port()
    return port, f"http://127.0.0.1:{port}"


def host_with_kills(folder, port, is_over, kills):
    """Serve a study until it is over; kill the server when so many lines are written, each time.

    Returns:
        How many kills met people who were not done.
    """
    num_kills = 0
    for enough in (*kills, 10**9):
        command = [sys.executable, "-m", "tests.evaluation.study_server", str(folder), str(port)]
        server = subprocess.Popen(command)
        while not (over := is_over()) and num_lines(folder) < enough:
            time.sleep(0.02)
        server.kill()  # SIGKILL: nothing is said goodbye to
        server.wait()
        if over:
            return num_kills
        num_kills += 1
    return num_kills


def num_lines(folder):
    file = folder / "answers.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def check_whole(folder, num_people):
    """Assert that each person's answers are whole and their own, and the arms in balance."""
    answers = read_answers(folder)
    assert sorted(answers) == list(range(1, num_people + 1))
    for number, events in answers.items():
        written = [e["text"] for e in events if e["kind"] == "message"]
        replies = [e["text"] for e in events if e["kind"] == "reply"]
        assert all(text.startswith(f"<person-{number}>") for text in written)
        assert len(set(written)) == len(written)  # nothing twice
        assert replies == [f"You said: {text}" for text in written]  # nothing crossed
        kinds = Counter(e["kind"] for e in events)
        assert (kinds["finish"], kinds["rate_task"], kinds["preference"]) == (2, 2, 1)
    begun = [events[0]["assignment"] for events in answers.values()]
    for place in (0, 1):
        counts = Counter(deal[place]["arm"] for deal in begun)
        assert abs(counts["walnut"] - counts["hazel"]) <= 1
    pairs = Counter((one["task_id"], one["arm"]) for deal in begun for one in deal)
    assert max(pairs.values()) - min(pairs.values()) <= 1
    return answers


@pytest.mark.slow
def test_forty_people_by_plain_requests(tmp_path):
    codes = open_study(tmp_path, make_study(participants=40, min_turns=1))
    port, address = free_address()
    people = [Participant(address, code, number, turns=1) for code, number in codes.items()]
    with ThreadPoolExecutor(40) as pool:
        jobs = [pool.submit(person.run) for person in people]
        num_kills = host_with_kills(
            tmp_path, port, lambda: all(job.done() for job in jobs), (100, 250)
        )
        assert {job.result()["phase"] for job in jobs} == {"done"}

    answers = check_whole(tmp_path, 40)
    assert num_kills == 2
    for person in people:
        written = [e["text"] for e in answers[person.number] if e["kind"] == "message"]
        assert written == person.sent  # nothing lost
        assert f"person-{person.number % 40 + 1}>" not in "".join(person.seen)


def crowd(folder, num_people, kills):
    """Let people do a study in browser profiles of their own, every fourth in two tabs."""
    codes = open_study(folder, make_study(participants=num_people, min_turns=1, rate_every=1))
    port, address = free_address()
    driver = start_browser()
    try:
        browsers = Browsers(driver)
        people = {
            number: browsers.open_profile(
                f"{address}/p/{code}", f"<person-{number}>", tabs=2 if number % 4 == 0 else 1
            )
            for code, number in codes.items()
        }
        forged = []

        def is_over():
            if not forged and num_lines(folder) > num_people:
                with client_of(address) as client, suppress(httpx.TransportError):
                    forged.extend([client.get(f"/p/{code[:-1]}/state") for code in codes])
            ended = [tab.has_ended() for tabs in people.values() for tab in tabs]
            return all(ended)

        num_kills = host_with_kills(folder, port, is_over, kills)
        shown = {number: tabs[0].shown() for number, tabs in people.items()}
        browsers.close()
    finally:
        driver.quit()
    return num_kills, shown, forged


def check_crowd(folder, num_people, kills):
    num_kills, shown, forged = crowd(folder, num_people, kills)

    answers = check_whole(folder, num_people)
    assert num_kills == len(kills)
    for number, events in answers.items():
        said = {e["text"] for e in events if e["kind"] in ("message", "reply")}
        assert shown[number] <= said  # what a page has shown is written down, and is the person's
        assert len(shown[number]) == 4
    assert {answer.status_code for answer in forged} == {404}
    assert not any("person-" in answer.text for answer in forged)


@needs_browser
def test_six_people_in_browsers(tmp_path):
    check_crowd(tmp_path, 6, (20,))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("COLLABLLM_FORTY_BROWSERS"), reason="run by hand")
@needs_browser
def test_forty_people_in_browsers(tmp_path):
    check_crowd(tmp_path, 40, (100, 250))
