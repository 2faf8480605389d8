"""A study: dealing, steps, kills, double clicks, two tabs, forged links."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from collabllm.errors import ContextFullError
from collabllm.evaluation.desk import ArmDesk
from collabllm.evaluation.study.analysis import analyse_study
from collabllm.evaluation.study.app import build_app
from collabllm.evaluation.study.design import Design
from collabllm.evaluation.study.host import Host
from collabllm.evaluation.study.person import Rules, rebuild
from collabllm.evaluation.study.run import build_study
from collabllm.evaluation.study.settings import StudySettings
from collabllm.evaluation.study.store import Study, StudyTask, export, open_study, read_answers
from collabllm.web import UserError
from tests.browser import is_dark, needs_browser, screen, wait_for, wait_until
from tests.evaluation.study_people import Participant, Quiet
from tests.pages import client_of, running

TASKS = [StudyTask(f"t{i}", f"Write letter {i}.") for i in range(4)]


def make_study(**changes):
    """Build a study of two arms and four tasks."""
    values = {
        "arms": ["walnut", "hazel"],
        "tasks": TASKS,
        "participants": 4,
        "tasks_each": 2,
        "min_turns": 2,
        "rate_every": 0,
        "pad_s": 0.0,
        "seed": 0,
        "contact": "",
    }
    return Study(**{**values, **changes})


@contextmanager
def hosted(folder, study):
    """Run a study; gives its host and address."""
    arms = {name: Quiet(name) for name in study.arms}
    prompts = dict.fromkeys(study.arms, "")
    with Host(folder, study, ArmDesk({}, arms), prompts) as host, running(build_app(host)) as url:
        host.arms = arms
        yield host, url


def act(client, code, step, **action):
    return client.post(f"/p/{code}/act", json={"step": step, "action": action})


@pytest.mark.parametrize("num_arms", [1, 2, 3, 4])
@pytest.mark.parametrize("tasks_each", [1, 2, 3, 4])
@pytest.mark.parametrize("num_tasks", [4, 5, 12])
def test_arms_are_even_within_one_at_every_place_and_task_after_every_person(
    num_arms, tasks_each, num_tasks
):
    arms = [f"arm{i}" for i in range(num_arms)]
    for seed in range(3):
        design = Design(arms, [f"t{i}" for i in range(num_tasks)], tasks_each, seed)
        places, on_task, seen = Counter(), Counter(), Counter()
        for _ in range(41):
            dealt = design.deal()
            assert len({one.task_id for one in dealt}) == tasks_each
            assert len({one.arm for one in dealt}) == min(num_arms, tasks_each)
            for place, one in enumerate(dealt):
                places[place, one.arm] += 1
                on_task[one.task_id, one.arm] += 1
                seen[one.task_id] += 1
            for place in range(tasks_each):
                counts = [places[place, arm] for arm in arms]
                assert max(counts) - min(counts) <= 1
            for i in range(num_tasks):
                counts = [on_task[f"t{i}", arm] for arm in arms]
                assert max(counts) - min(counts) <= 1
        counts = [seen[f"t{i}"] for i in range(num_tasks)]
        assert max(counts) - min(counts) <= num_arms


def test_the_deal_depends_on_the_seed_and_goes_on_after_a_restart():
    def deals(seed, number):
        design = Design(["a", "b"], ["x", "y", "z"], 2, seed)
        return [design.deal() for _ in range(number)]

    again = Design(["a", "b"], ["x", "y", "z"], 2, 1)
    for dealt in deals(1, 5):
        again.take(dealt)

    assert deals(1, 6) == deals(1, 6)
    assert deals(1, 6) != deals(2, 6)
    assert again.deal() == deals(1, 6)[5]
    with pytest.raises(ValueError, match=r"--tasks_each must be .* number of tasks \(1\)"):
        Design(["a"], ["x"], 2, 0)


def test_a_person_goes_from_consent_to_preference(tmp_path):
    with hosted(tmp_path, make_study(rate_every=2)) as (host, url):
        code = next(iter(host.codes))
        person = Participant(url, code, 1, hasty=False)
        person.run()

    kinds = [event["kind"] for event in read_answers(tmp_path)[1]]
    task = ["message", "reply", "message", "reply", "rate_turn", "finish", "rate_task"]
    assert kinds == ["consent", *task, *task, "preference"]
    reply = read_answers(tmp_path)[1][2]
    assert reply["text"].startswith("You said: <person-1>")
    assert {"tokens", "seconds", "waited_s", "at", "task_id"} <= reply.keys()


def test_an_action_that_does_not_belong_changes_nothing(tmp_path):
    with hosted(tmp_path, make_study()) as (host, url), client_of(url) as client:
        code = next(iter(host.codes))
        early = act(client, code, 0, kind="message", text="hi")
        act(client, code, 0, kind="consent", agree=True)
        wrong = [
            act(client, code, 0, kind="message", text="from a second tab"),
            act(client, code, 1, kind="message", text=" "),
            act(client, code, 1, kind="message", text="x" * 8001),
            act(client, code, 1, kind="message", text=["x"]),
            act(client, code, 1, kind="finish"),
            act(client, code, 1, kind="rate_task", interaction=5, result=5, why=""),
            act(client, code, 1, kind="reply", text="I am the assistant"),
            act(client, code, 1, kind="preference", choice=1, why=""),
        ]
        state = client.get(f"/p/{code}/state").json()

    assert [early.status_code] + [a.status_code for a in wrong] == [
        409,
        409,
        *[400] * 4,
        *[409] * 3,
    ]
    assert (state["step"], state["messages"]) == (1, [])
    assert len(read_answers(tmp_path)[1]) == 1
    for grade in (0, 6, True, 2.5, None, "5"):
        rules = rebuild(1, Rules(1, 0), [])
        rules.phase = "rate_task"
        with pytest.raises(UserError, match="Grade the"):
            rules.check({"kind": "rate_task", "interaction": grade, "result": 1, "why": ""})


def test_who_does_not_consent_is_asked_nothing_more(tmp_path):
    with hosted(tmp_path, make_study()) as (host, url), client_of(url) as client:
        code = next(iter(host.codes))
        state = act(client, code, 0, kind="consent", agree=False).json()
        after = act(client, code, 1, kind="message", text="hi")

    assert (state["phase"], after.status_code) == ("refused", 409)
    assert "assignment" not in read_answers(tmp_path)[1][0]


def test_forged_links_reach_nothing(tmp_path):
    with hosted(tmp_path, make_study()) as (host, url), client_of(url) as client:
        real = next(iter(host.codes))
        Participant(url, real, 1, hasty=False).run()
        forged = [real[:-1], f"{real}a", real.swapcase(), "1", "..%2f..%2fstudy.json", ""]
        answers = [client.get(f"/p/{code}{path}") for code in forged for path in ("", "/state")] + [
            client.get(path) for path in ("/", "/p", "/links.json", "/answers.jsonl")
        ]

    assert {answer.status_code for answer in answers} <= {404, 307}
    assert "person-1" not in "".join(answer.text for answer in answers)
    assert len(set(host.codes)) == 4
    assert all(len(code) >= 20 for code in host.codes)


def test_no_answer_of_the_server_tells_the_arm_and_padding_hides_its_speed(tmp_path):
    with hosted(tmp_path, make_study(pad_s=0.3)) as (host, url):
        people = [Participant(url, code, n, hasty=False) for code, n in host.codes.items()]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Participant.run, people))
        with client_of(url) as client:
            pages = [client.get(f"/p/{code}") for code in host.codes]

    seen = "".join(text for person in people for text in person.seen)
    assert '"phase":"preference"' in seen
    for text in (seen, *(page.text + str(page.headers) for page in pages)):
        assert "walnut" not in text
        assert "hazel" not in text
    answers = read_answers(tmp_path)
    waited = [e["waited_s"] for n in answers for e in answers[n] if "waited_s" in e]
    assert min(waited) >= 0.3


def test_an_arm_that_fails_can_be_asked_again_and_the_failure_is_kept(tmp_path):
    with hosted(tmp_path, make_study()) as (host, url), client_of(url) as client:
        code = next(iter(host.codes))
        act(client, code, 0, kind="consent", agree=True)
        act(client, code, 1, kind="message", text="hi")
        for arm in host.arms.values():
            arm.fails = RuntimeError("secret name of the arm: walnut")
        failed = client.post(f"/p/{code}/wait", json={})
        for arm in host.arms.values():
            arm.fails = None
        state = client.post(f"/p/{code}/wait", json={}).json()

    assert failed.status_code == 502
    assert "walnut" not in failed.text
    assert [m["content"] for m in state["messages"]] == ["hi", "You said: hi"]
    assert [e["kind"] for e in read_answers(tmp_path)[1]][2:] == ["failure", "reply"]
    export(tmp_path, tmp_path / "open.jsonl")
    assert "secret name" in (tmp_path / "answers.jsonl").read_text()
    assert "secret name" not in (tmp_path / "open.jsonl").read_text()


def test_a_conversation_that_fills_the_context_is_graded_and_the_study_goes_on(tmp_path):
    with hosted(tmp_path, make_study()) as (host, url), client_of(url) as client:
        code = next(iter(host.codes))
        act(client, code, 0, kind="consent", agree=True)
        act(client, code, 1, kind="message", text="long " * 1000)
        for arm in host.arms.values():
            arm.fails = ContextFullError("secret of walnut: 9,000 tokens, the context has 8,192")
        full = client.post(f"/p/{code}/wait", json={})
        again = client.post(f"/p/{code}/wait", json={}).json()
        refused = act(client, code, 3, kind="message", text="one more")
        graded = act(client, code, 3, kind="finish").json()
        for arm in host.arms.values():
            arm.fails = None
        following = act(client, code, 4, kind="rate_task", interaction=2, result=1, why="").json()
        Participant(url, code, 1, hasty=False).run()

    state = full.json()
    assert "walnut" not in full.text
    assert (state["waits"], state["may_write"], state["may_finish"]) == (False, False, True)
    assert (state["step"], again["step"]) == (3, 3)
    assert (refused.status_code, graded["phase"]) == (409, "rate_task")
    assert (following["task_number"], following["may_write"], following["may_finish"]) == (
        2,
        True,
        False,
    )
    notes = " ".join(analyse_study(tmp_path).notes)
    assert "1 conversation filled a model's context, and ended without a reply." in notes


def test_no_more_messages_can_be_asked_for_than_a_conversation_takes():
    StudySettings(min_turns=50)

    with pytest.raises(ValueError, match="min_turns must be at most 50, got 60"):
        StudySettings(min_turns=60)


def test_a_study_goes_on_only_as_it_was(tmp_path):
    codes = open_study(tmp_path, make_study())

    assert open_study(tmp_path, make_study()) == codes
    with pytest.raises(ValueError, match="another study: min_turns, seed differ"):
        open_study(tmp_path, make_study(min_turns=3, seed=1))
    assert (tmp_path / "links.json").stat().st_mode & 0o77 == 0


def test_a_study_goes_on_only_with_the_same_arms(tmp_path):
    adapter, folder = tmp_path / "adapter", tmp_path / "study"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"one")

    def go_on(**changes):
        arm = ["name=base", f"name=trained,lora_path={adapter}"]
        open_study(folder, build_study(StudySettings(arm=arm, num_tasks=4, **changes)))

    go_on()
    go_on()
    go_on(tasks_each=2, port=9000)  # what it is by default, and what decides nothing
    for name, value in {"top_p": 0.1, "no_repeat_ngram_size": 4, "temperature": 0.1}.items():
        with pytest.raises(ValueError, match=f"another study: {name} differ"):
            go_on(**{name: value})
    (adapter / "adapter_model.safetensors").write_bytes(b"two")
    with pytest.raises(ValueError, match="another study: contents differ"):
        go_on()

    former = json.loads((folder / "study.json").read_text())
    kept = ("arms", "tasks", "max_new_tokens", "temperature", "system_prompt")
    former["settings"] = {name: former["settings"][name] for name in kept}
    (folder / "study.json").write_text(json.dumps(former))
    go_on(top_p=0.1)  # of a version that kept no more


def test_the_export_has_no_links_numbers_or_clock_times(tmp_path):
    with hosted(tmp_path, make_study()) as (host, url):
        for code, number in host.codes.items():
            Participant(url, code, number, hasty=False).run()
        codes = list(host.codes)

    assert export(tmp_path, tmp_path / "open.jsonl") == 4
    text = (tmp_path / "open.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(code not in text for code in codes)
    assert max(line["at"] for line in lines) < 1e6
    assert {line["person"] for line in lines} == {1, 2, 3, 4}
    assert len(lines) == sum(map(len, read_answers(tmp_path).values()))
    with pytest.raises(FileExistsError, match="--export"):
        export(tmp_path, tmp_path / "open.jsonl")


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_in_a_browser(tmp_path, browser, width, scheme):
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def touch(way, what, do):
        """Do something as soon as it can be: the page draws itself anew after each answer."""
        patience = WebDriverWait(browser, 20, 0.05, ignored_exceptions=[WebDriverException])
        patience.until(lambda page: do(page.find_element(way, what)) or True)

    def press(label):
        touch("xpath", f"//button[normalize-space()='{label}']", lambda node: node.click())

    def grade(name, value):
        touch("css selector", f"input[name={name}][value='{value}']", lambda node: node.click())

    def say(text):
        touch("css selector", "textarea:not(:disabled)", lambda node: node.send_keys(text))

    study = make_study(rate_every=2, contact="ask@example.org")
    with hosted(tmp_path, study) as (host, url), screen(browser, width, scheme=scheme):
        browser.get(f"{url}/p/{next(iter(host.codes))}")
        wait_for(browser, "h1")
        assert "What is recorded" in browser.find_element("tag name", "body").text
        press("I have read this and take part")
        for task in (1, 2):
            for turn in (1, 2):
                say(f"<b>hello {task}</b>{Keys.ENTER}")
                wait_for(browser, ".message.assistant", turn)
                if turn == 1:
                    browser.refresh()
                    wait_for(browser, ".message.assistant", turn)
            wait_for(browser, "input[name=interaction]")
            press("Go on")  # without a grade
            wait_for(browser, "#fault:not(:empty)")
            grade("interaction", 4)
            press("Go on")
            wait_for(browser, "textarea:not(:disabled)")
            press("I have what I need")
            wait_for(browser, "input[name=result]")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            grade("interaction", 5)
            grade("result", 3)
            press("Go on")
        wait_for(browser, "input[name=choice]")
        dark = is_dark(browser)
        grade("choice", 2)
        press("Finish")
        wait_until(browser, "document.getElementById('view').textContent.includes('That was all.')")
        log = browser.get_log("browser")

    last = read_answers(tmp_path)[1][-1]
    assert (last["kind"], last["choice"]) == ("preference", 2)
    assert dark == (scheme == "dark")
    assert [line for line in log if "400" not in line["message"]] == []


@needs_browser
def test_what_was_typed_and_graded_stays_on_the_page_when_it_cannot_be_sent(tmp_path, browser):
    def run(script):
        return browser.execute_script(script)

    def press(label):
        buttons = "[...document.querySelectorAll('button:enabled')]"
        found = f"{buttons}.find((one) => one.textContent === '{label}')"
        wait_until(browser, f"!!{found}")
        run(f"{found}.click()")

    def fault(text):
        wait_until(browser, f"document.getElementById('fault').textContent.includes('{text}')")
        wait_until(browser, "!document.getElementById('view').disabled")

    def form():
        return run(
            "return [document.querySelector('textarea').value, "
            "...[...document.querySelectorAll('input:checked')].map((i) => i.name + i.value)]"
        )

    def say(text):
        wait_for(browser, "textarea:enabled")[0].send_keys(text)

    away = "window.real ??= window.fetch; window.fetch = () => Promise.reject(new Error());"
    with hosted(tmp_path, make_study(min_turns=1)) as (host, url):
        browser.get(f"{url}/p/{next(iter(host.codes))}")
        press("I have read this and take part")
        say("hello")
        run(away)
        press("Send")
        fault("Your answers are kept")
        unsent = form()
        run("window.fetch = window.real")
        press("Send")
        wait_for(browser, ".message.assistant")
        press("I have what I need")
        wait_for(browser, "input[name=result]")
        say("A long reason")
        run("document.querySelector('input[name=interaction][value=\"5\"]').click()")
        press("Go on")  # without a grade of the result
        fault("Grade the result")
        refused = form()
        run("document.querySelector('input[name=result][value=\"4\"]').click()")
        run(away)
        press("Go on")
        fault("Your answers are kept")
        lost = form()
        run("window.fetch = window.real")
        press("Go on")
        wait_until(browser, "document.getElementById('progress').textContent === 'Task 2 of 2'")
        browser.get_log("browser")

    assert unsent == ["hello"]
    assert refused == ["A long reason", "interaction5"]
    assert lost == ["A long reason", "interaction5", "result4"]
    grades = next(e for e in read_answers(tmp_path)[1] if e["kind"] == "rate_task")
    assert (grades["interaction"], grades["result"], grades["why"]) == (5, 4, "A long reason")


@needs_browser
def test_a_conversation_that_is_full_can_be_graded_on_the_page(tmp_path, browser):
    with hosted(tmp_path, make_study()) as (host, url):
        for arm in host.arms.values():
            arm.fails = ContextFullError("too long")
        code = next(iter(host.codes))
        with client_of(url) as client:
            act(client, code, 0, kind="consent", agree=True)
            act(client, code, 1, kind="message", text="hi")
            client.post(f"/p/{code}/wait", json={})
        browser.get(f"{url}/p/{code}")
        wait_for(browser, "#view button")
        text = browser.find_element("id", "view").text
        fields = browser.find_elements("css selector", "textarea")
        browser.find_element("xpath", "//button[normalize-space()='Go on']").click()
        wait_for(browser, "input[name=result]")

    assert "This conversation is full: please grade it." in text
    assert "at least" not in text
    assert fields == []
