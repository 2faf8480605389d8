"""The chat: one arm or two, stop, edit, regenerate, bounds, and nothing of another visitor."""

import json
import re
import signal
import subprocess
import sys
import threading
from urllib.parse import unquote

import pytest

from collabllm.chat.app import build_app
from collabllm.chat.settings import ChatSettings
from collabllm.chat.talks import MAX_LETTERS, Talks
from collabllm.errors import ServerError
from collabllm.evaluation.desk import ArmDesk
from collabllm.servers.kept_usage import read_usage
from collabllm.simulation.record import Record
from scripts.chat import main as chat_script
from scripts.view import main as view
from tests.browser import SMALLEST_TEXT, is_dark, needs_browser, screen, wait_for, wait_until
from tests.fake_server import FakeServer
from tests.pages import Echo, client_of, running

EVIL = "</script><img src=x onerror='window.hacked = 1'>"


class Chat:
    """A chat of two arms on a server, and what a page does."""

    def __init__(self, folder, **bounds):
        self.arms = {name: Echo(name) for name in ("base", "tuned")}
        self.folder = folder
        prompts = {"base": "Be kind.", "tuned": ""}
        self.talks = Talks(ArmDesk({}, self.arms), prompts, folder, **bounds)
        self.app = build_app(self.talks, beside="tuned")

    def saved(self):
        (file,) = self.folder.glob("*.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()]


def begin(client, *arms, **more):
    return client.post("/begin", json={"arms": list(arms), **more}).json()["key"]


def say(client, key, text, turn):
    return client.post("/say", json={"key": key, "text": text, "turn": turn})


def reply(client, key, side=0):
    """Let an arm answer; the answer has its lines, and what `json()` gives is the last one."""
    answer = client.post("/reply", json={"key": key, "side": side})
    if answer.status_code == 200:
        answer.lines = [json.loads(line) for line in answer.text.splitlines()]
        answer.json = lambda: answer.lines[-1]
    return answer


@pytest.fixture
def chat(tmp_path):
    return Chat(tmp_path / "chat")


def test_two_arms_answer_the_same_message_each_with_its_own_history(chat):
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "base", "tuned")
        say(client, key, "hello", 0)
        answers = [reply(client, key, side).json() for side in (0, 1)]
        say(client, key, "more", 1)
        reply(client, key, 1)

    assert [a["text"] for a in answers] == ["base says: hello", "tuned says: hello"]
    assert answers[0]["tokens"] == 5
    assert chat.arms["base"].asked[0][0][0] == {"role": "system", "content": "Be kind."}
    assert [m["content"] for m in chat.arms["tuned"].asked[1][0]] == [
        "hello",
        "tuned says: hello",
        "more",
    ]


def test_an_edited_message_takes_the_place_of_all_that_followed(chat):
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "base", system_prompt="Be brief.")
        for turn, text in enumerate(("one", "two")):
            say(client, key, text, turn)
            reply(client, key)
        say(client, key, "another", 0)
        reply(client, key)
        assert say(client, key, "too far", 5).status_code == 400

    (line,) = chat.saved()
    assert [m["content"] for m in line["messages"]] == [
        "Be brief.",
        "another",
        "base says: another",
    ]


def test_regenerating_asks_again_with_another_seed(chat):
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "tuned")
        say(client, key, "hello", 0)
        reply(client, key)
        reply(client, key)

    (first, seed), (second, other) = chat.arms["tuned"].asked
    assert first == second
    assert seed != other
    assert len(chat.saved()[0]["messages"]) == 2


def test_a_reply_stays_when_the_one_in_its_place_fails(chat):
    arm = chat.arms["base"]
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "base")
        say(client, key, "hello", 0)
        reply(client, key)
        arm.fails = ServerError("down")
        assert "down" in reply(client, key).json()["error"]
        arm.fails = None
        say(client, key, "more", 1)

    (line,) = chat.saved()
    assert [m["content"] for m in line["messages"][1:]] == ["hello", "base says: hello", "more"]
    assert len(line["replies"]) == 1


def test_what_is_known_of_replies_goes_with_them_where_a_turn_has_none(chat):
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "base")
        chat.arms["base"].fails = ServerError("down")
        say(client, key, "hello", 0)
        reply(client, key)
        chat.arms["base"].fails = None
        for text in ("more", "more, edited"):
            say(client, key, text, 1)
            reply(client, key)

    (line,) = chat.saved()
    assert [m["role"] for m in line["messages"][1:]] == ["user", "user", "assistant"]
    assert len(line["replies"]) == 1


def test_a_stopped_reply_leaves_no_trace_and_can_be_tried_again(chat):
    arm = chat.arms["base"]
    arm.held.clear()
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "base")
        say(client, key, "hello", 0)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(reply(client, key)))
        waiting.start()
        while not arm.asked:
            pass
        client.post("/stop", json={"key": key})
        waiting.join()
        arm.held.set()
        again = reply(client, key)

    assert answers[0].json() == {"error": "Stopped.", "stopped": True}
    assert again.json()["text"] == "base says: hello"


def ask_for_half(chat, client):
    """Begin a chat whose reply stops in the middle; return its key, and the answer to open."""
    arm = chat.arms["base"]
    arm.half = True
    arm.held.clear()
    key = begin(client, "base")
    say(client, key, "hello", 0)
    return key, client.stream("POST", "/reply", json={"key": key, "side": 0})


def test_a_reply_comes_as_it_is_written_and_what_is_stopped_in_the_middle_stays(chat):
    with running(chat.app) as address, client_of(address) as client:
        key, half = ask_for_half(chat, client)
        with half as answer:
            lines = answer.iter_lines()
            first = json.loads(next(lines))
            client.post("/stop", json={"key": key})
            last = json.loads(next(lines))
        (stopped,) = chat.saved()
        chat.arms["base"].held.set()
        again = reply(client, key)

    assert first == {"text": "base says", "thinks": False}
    assert (last["text"], last["tokens"], last["finish_reason"]) == ("base says", 2, "stopped")
    assert stopped["messages"][-1] == {"role": "assistant", "content": "base says"}
    assert again.json()["finish_reason"] == "stop"
    assert chat.saved()[0]["messages"][-1]["content"] == "base says: hello"


def test_a_reply_that_nobody_waits_for_any_more_is_stopped(chat):
    with running(chat.app) as address, client_of(address) as client:
        _, half = ask_for_half(chat, client)
        with half as answer:
            next(answer.iter_lines())
        while len(chat.saved()[0]["messages"]) < 3:  # the page was closed
            pass

    assert chat.saved()[0]["messages"][-1]["content"] == "base says"


def test_a_model_that_dies_is_a_sentence_and_the_chat_goes_on(chat):
    arm = chat.arms["base"]
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "base")
        say(client, key, "hello", 0)
        arm.fails = ServerError("http://127.0.0.1:1 does not answer.")
        server = reply(client, key)
        arm.fails = RuntimeError("out of memory")
        local = reply(client, key)
        arm.fails = None
        well = reply(client, key)

    said = "The model did not answer: http://127.0.0.1:1 does not answer."
    assert server.json() == {"error": said, "stopped": False}
    assert "out of memory" in local.json()["error"]
    assert well.json()["text"] == "base says: hello"


def test_nobody_reaches_the_conversation_of_another(chat):
    with running(chat.app) as address, client_of(address) as client:
        mine = begin(client, "base")
        say(client, mine, "my secret", 0)
        reply(client, mine)
        pages = [client.get("/").text]
        guesses = [reply(client, key) for key in ("", "0", mine[:-1], f"{mine}x")]

    assert {answer.status_code for answer in guesses} == {404}
    assert "my secret" not in "".join([*pages, *(answer.text for answer in guesses)])
    assert len(mine) >= 32
    assert mine not in json.dumps(chat.saved())
    assert all(mine not in file.name for file in chat.folder.iterdir())


def test_bounds_are_sentences(tmp_path):
    chat = Chat(tmp_path, max_talks=2, max_replies=1)
    chat.arms["base"].held.clear()
    with running(chat.app) as address, client_of(address) as client:
        first, second = begin(client, "base"), begin(client, "base")
        long = say(client, first, "x" * (MAX_LETTERS + 1), 0)
        empty = say(client, first, "  ", 0)
        early = reply(client, first)
        say(client, first, "hello", 0)
        say(client, second, "hello", 0)
        waiting = threading.Thread(target=lambda: reply(client, first))
        waiting.start()
        while not chat.arms["base"].asked:
            pass
        busy = reply(client, second)
        begin(client, "base")  # one too many: the first goes, and its reply stops
        waiting.join()
        gone = say(client, first, "again", 1)
        unknown = client.post("/begin", json={"arms": ["other"]})

    assert "at most 8,000 letters; this has 8,001" in long.json()["error"]
    assert (empty.status_code, early.status_code) == (400, 400)
    assert (busy.status_code, "Too many replies" in busy.text) == (503, True)
    assert (gone.status_code, "begin a new one" in gone.text) == (404, True)
    assert "Choose one arm or two of: base, tuned" in unknown.json()["error"]


def test_conversations_are_transcripts_that_the_viewer_opens(chat, tmp_path):
    with running(chat.app) as address, client_of(address) as client:
        key = begin(client, "base", "tuned")
        say(client, key, f"half \ud83d {EVIL}".encode("utf-8", "replace").decode(), 0)
        for side in (0, 1):
            reply(client, key, side)

    lines = chat.saved()
    assert [line["assistant"] for line in lines] == ["base", "tuned"]
    assert Record.from_json(lines[0]).result.usage["completion_tokens"] == 5
    (chat.folder / ".usage-1.jsonl").touch()  # the journal of a page that runs
    view([str(chat.folder)])
    assert "base" in (chat.folder / "conversations.html").read_text()


def test_strangers_need_a_token():
    with pytest.raises(ValueError, match=r"--host 0.0.0.0 lets others .*: give --token"):
        ChatSettings(host="0.0.0.0")
    ChatSettings(host="0.0.0.0", token="long enough it is")
    ChatSettings(host="::1")


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_in_a_browser_by_keyboard_alone(chat, browser, width, scheme):
    from selenium.webdriver.common.keys import Keys

    with running(chat.app) as address, screen(browser, width, scheme=scheme):
        browser.get(address)
        field = browser.switch_to.active_element
        assert field.get_attribute("id") == "text"
        field.send_keys(f"hello {EVIL}", Keys.ENTER)
        wait_for(browser, ".reply .text", 2)
        texts = [node.text for node in browser.find_elements("css selector", ".reply .text")]
        field.send_keys("more", Keys.ENTER)
        wait_for(browser, ".reply .text", 4)
        browser.find_elements("css selector", ".user button")[0].send_keys(Keys.ENTER)
        assert browser.switch_to.active_element.get_attribute("value") == f"hello {EVIL}"
        field.clear()
        field.send_keys("changed", Keys.ENTER)
        wait_until(browser, "document.querySelectorAll('.turn').length === 1 && !running")
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        smallest = browser.execute_script(SMALLEST_TEXT)
        dark = is_dark(browser)
        turns = browser.find_elements("css selector", ".turn")
        images = browser.find_elements("css selector", "img")
        facts = browser.find_element("css selector", ".reply .facts").text
        log = browser.get_log("browser")

    assert texts == [f"base says: hello {EVIL}", f"tuned says: hello {EVIL}"]
    assert len(turns) == 1
    assert "changed" in turns[0].text
    assert re.match(r"5 tokens, \d", facts)
    assert (wide <= width, smallest[0] >= 12, dark) == (True, True, scheme == "dark"), smallest
    assert images == []
    assert log == []


@needs_browser
def test_the_page_shows_a_reply_as_it_is_written_and_keeps_what_was_stopped(chat, browser):
    from selenium.webdriver.common.keys import Keys

    for arm in chat.arms.values():
        arm.half = True
        arm.held.clear()
    with running(chat.app) as address:
        browser.get(address)
        field = browser.find_element("id", "text")
        field.send_keys("hello", Keys.ENTER)
        shown = "[...document.querySelectorAll('.written')].map((node) => node.textContent)"
        wait_until(browser, f"{shown}.join() === 'base says,tuned says'")
        field.send_keys(Keys.ESCAPE)
        wait_for(browser, ".reply .text", 2)
        replies = [node.text for node in browser.find_elements("css selector", ".reply")]
        browser.find_element("css selector", "button[aria-label='Regenerate: tuned']").click()
        chat.arms["tuned"].held.set()
        wait_until(browser, "document.body.textContent.includes('tuned says: hello')")
        log = browser.get_log("browser")

    assert [text.split("\n")[1] for text in replies] == ["base says", "tuned says"]
    assert all(text.split("\n")[2].endswith(" s, stopped") for text in replies)
    assert log == []


@needs_browser
def test_the_page_says_that_the_model_or_the_server_died(chat, browser):
    from selenium.webdriver.common.keys import Keys

    chat.arms["base"].fails = ServerError("no answer in 5 s.")
    with running(chat.app) as address:
        browser.get(address)
        browser.find_element("id", "text").send_keys("hello", Keys.ENTER)
        wait_for(browser, ".fault")
        assert "no answer in 5 s." in browser.find_element("css selector", ".fault").text
        chat.arms["base"].fails = None
        browser.find_element("css selector", "button[aria-label='Try again: base']").click()
        wait_for(browser, ".reply .text", 2)
        chat.arms["base"].held.clear()
        browser.find_element("css selector", "button[aria-label='Regenerate: base']").click()
        wait_for(browser, ".waiting")
        browser.find_element("id", "stop").click()
        wait_for(browser, "button[aria-label='Try again: base']")
        wait_for(browser, ".reply .text", 2)  # the former reply stays
        chat.arms["base"].held.set()
    browser.find_element("id", "text").send_keys("anybody?", Keys.ENTER)
    wait_for(browser, "#status:not(:empty)")

    assert "The server does not answer. Start scripts/chat.py again" in (
        browser.find_element("id", "status").text
    )
    browser.get_log("browser")


def test_the_script_serves_until_ctrl_c_and_says_where_the_conversations_are(tmp_path):
    answer = "We can begin. What is the budget?"
    with FakeServer(lambda body: answer) as server:
        command = [sys.executable, "scripts/chat.py", "--port", "0", "--output_dir", str(tmp_path)]
        arm = ["--arm", f"name=served,model=m,base_url={server.url}"]
        process = subprocess.Popen(
            [*command, *arm, "--token", "open sesame"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = process.stdout.readline()
        address, _, token = line.split()[1].partition("/?token=")
        with client_of(address) as client:
            refused = begin_status(client)
            client.get("/", params={"token": unquote(token)})
            key = begin(client, "served")
            say(client, key, "hello", 0)
            text = reply(client, key).json()["text"]
        second = subprocess.run([*command, *arm], capture_output=True, text=True, timeout=60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert (refused, text) == (401, answer)
    assert second.returncode == 2
    assert f"{tmp_path}: another chat writes there" in second.stderr
    assert process.returncode == 130
    assert f"The conversations are in {tmp_path}: uv run python scripts/view.py" in errors
    assert server.requests[0]["messages"][-1]["content"] == "hello"
    assert read_usage(tmp_path).by_role()["assistant"].requests == 1


def begin_status(client):
    return client.post("/begin", json={"arms": ["served"]}).status_code


def test_wrong_arms_are_told_before_anything_loads(tmp_path):
    with pytest.raises(FileNotFoundError, match="no adapter in .*; train it first, or name"):
        chat_script(["--arm", f"name=x,lora_path={tmp_path}", "--port", "0"])
    with pytest.raises(ValueError, match="need names of their own"):
        chat_script(["--arm", "name=x", "--arm", "name=x", "--port", "0"])
