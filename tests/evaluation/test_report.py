"""The report and the viewer in a real browser: filters, arms side by side, candidates, escaping."""

import json
import os
import shutil
from pathlib import Path

import pytest

from collabllm.evaluation.report.charts import forest_plot
from collabllm.evaluation.report.page import write_report
from scripts.view import main as view
from tests.evaluation.test_results import SCORES, results_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not os.environ.get("COLLABLLM_REQUIRE_BROWSER"),
    reason="chromium and chromedriver are not installed",
)
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"


def transcript(arm, task, *replies, reason="max_turns"):
    messages = [{"role": "user", "content": f"opening of {task}"}]
    for reply in replies:
        messages += [
            {"role": "assistant", "content": reply},
            {"role": "user", "content": "go on"},
        ]
    return {
        "task_id": task,
        "rollout_idx": 0,
        "single_turn_prompt": f"goal of {task}",
        "messages": messages[:-1],
        "user_turns": [],
        "termination_reason": reason,
        "usage": {},
        "timings": {},
        "seeds": [],
        "error": "",
        "failed": False,
        "audit": {"repeat": task == "a"},
        "assistant": arm,
        "user": "sharded",
        "prompt_hash": "",
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "transcripts").mkdir()
    for arm in ("base", "sft"):
        tasks = ["a", "b", "c", *(f"{t}+3" for t in "abc")]
        lines = [
            transcript(arm, t, f"{arm} asks about {t}?", EVIL if t == "b" else "fine")
            for t in tasks
        ]
        lines[0]["termination_reason"] = "user_satisfied"
        file = folder / "transcripts" / f"{arm}--sharded.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {
        **results_of(SCORES),
        "users": [{"name": "sharded"}],
        "usage": {"user": {"requests": 3, "prompt_tokens": 5, "completion_tokens": 7}},
        "cost_usd": 0.25,
        "settings": {"max_turns": 4, "system_prompt": "<b>be brief</b>"},
        "versions": {"torch": "1"},
        "prompt_hashes": {"user_simulator": "abc"},
        "tasks": ["a", "b", "c"],
    }
    return write_report(folder / "report.html", folder, results, SCORES)


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1200,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def select(browser, name, value):
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", f"filter-{name}")).select_by_value(value)


def cards(browser):
    return browser.find_elements("css selector", ".conversation")


def expand(browser):
    """Open the first conversation, and wait for its messages: the browser tells the page later."""
    from selenium.webdriver.support.ui import WebDriverWait

    cards(browser)[0].find_element("css selector", "summary").click()
    WebDriverWait(browser, 30).until(
        lambda driver: driver.find_elements("css selector", ".conversation .message")
    )


def count(browser):
    return browser.find_element("id", "count").text


@needs_browser
def test_it_opens_from_disk_without_any_error(report, browser):
    browser.get(report.as_uri())

    assert "base, sft" in browser.title
    assert count(browser) == "12 of 12 conversations"
    assert browser.find_element("css selector", "#results table").text.startswith("arm m")
    assert len(browser.find_elements("css selector", "#results figure svg circle")) >= 2
    assert "$0.2500" in browser.find_element("id", "endings").text
    assert browser.get_log("browser") == []


def test_only_intervals_that_exclude_zero_are_marked():
    shared = {"metric": "m", "p_value": 0.5, "p_holm": None}
    rows = [
        {"arm": "up", "mean": 0.2, "low": 0.1, "high": 0.3, **shared},
        {"arm": "wide", "mean": 0.2, "low": -0.1, "high": 0.5, **shared},
        {"arm": "same", "mean": 0.0, "low": 0.0, "high": 0.0, **shared},
    ]

    plot = forest_plot(rows)

    assert [row["kind"] for row in plot["rows"]] == ["clear", "unclear", "unclear"]
    assert plot["rows"][2]["x"] == plot["center"]
    assert forest_plot(rows[2:])["ticks"][0]["text"] == "-1"


@needs_browser
def test_filters_by_task_arm_ending_kind_and_text(report, browser):
    browser.get(report.as_uri())

    select(browser, "task", "b")
    assert count(browser) == "2 of 12 conversations"
    select(browser, "arm", "sft")
    assert count(browser) == "1 of 12 conversations"
    select(browser, "task", "")
    select(browser, "outcome", "user_satisfied")
    assert [card.text.split("\n")[0] for card in cards(browser)] == [
        "a sft · user sharded, vague openings · user_satisfied"
    ]
    select(browser, "outcome", "")
    browser.find_element("id", "filter-text").send_keys("sft ABOUT c+3")
    assert count(browser) == "1 of 12 conversations"
    assert browser.get_log("browser") == []


@needs_browser
def test_a_conversation_expands_beside_another_arm_and_shows_scores(report, browser):
    browser.get(report.as_uri())
    select(browser, "task", "a")
    select(browser, "arm", "sft")
    select(browser, "other", "base")

    expand(browser)

    sides = browser.find_elements("css selector", ".conversation .side")
    assert [side.find_element("tag name", "h4").text for side in sides] == [
        "sft: user_satisfied",
        "base: user_satisfied",
    ]
    assert "m 0.5" in sides[0].text
    assert "m 0" in sides[1].text
    assert "sft asks about a?" in sides[0].text
    assert "5 tokens, 2 questions, 1 needless, 1 fact told next" in sides[0].text
    assert "user's faults: repeat" in sides[0].text
    assert browser.get_log("browser") == []


@needs_browser
def test_markup_in_a_reply_shows_as_text(report, browser):
    browser.get(report.as_uri())
    select(browser, "task", "b")
    expand(browser)

    assert EVIL in browser.find_element("css selector", ".conversation").text
    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements("css selector", ".conversation img") == []
    assert "<b>be brief</b>" in browser.find_element("id", "settings").text


@needs_browser
def test_the_keyboard_searches_and_walks_through_conversations(report, browser):
    from selenium.webdriver.common.keys import Keys

    browser.get(report.as_uri())
    body = browser.find_element("tag name", "body")
    body.send_keys("j")
    browser.switch_to.active_element.send_keys("j")
    focused = browser.switch_to.active_element
    assert focused.text.startswith("b ")
    focused.send_keys(Keys.ENTER)
    assert cards(browser)[1].get_attribute("open") is not None
    focused.send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "filter-text"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(report, browser, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        browser.get(report.as_uri())
        select(browser, "other", "sft")
        expand(browser)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    assert width <= 400
    assert (sum(map(int, color[4:-1].split(","))) < 200) == (scheme == "dark")


def test_the_page_asks_nothing_of_the_network(report):
    page = report.read_text()

    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page


def test_no_text_can_end_the_data_element(report):
    page = report.read_text()

    assert page.count("</script>") == 2
    data = page.split('id="data">')[1].split("</script>")[0]
    assert EVIL in {
        m["content"] for c in json.loads(data) for m in c["messages"] if m["role"] == "assistant"
    }


@needs_browser
def test_a_dataset_shows_the_candidates_of_each_turn_and_why_one_was_chosen(
    tmp_path, browser, make_conversation
):
    rows = make_conversation(
        [("hi", {"what?": 0.9, "so what": 0.1}), ("that", {"done": 0.7, "no": 0.2})]
    )
    rows[0] |= {"rewards": {"total": [0.8, 1.0]}, "standard_error": 0.1}
    rows[0]["sessions"] = [[{"role": "assistant", "content": "what?"}]]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    view([str(file), "--output", str(tmp_path / "data.html")])

    browser.get((tmp_path / "data.html").as_uri())
    expand(browser)
    browser.find_element("css selector", ".candidates summary").click()

    text = browser.find_element("css selector", ".conversation").text
    assert "2 candidates; went on with: score 0.900 against 0.100" in text
    assert "0.9 ± 0.1 chosen" in text
    assert "total [0.8,1]" in text
    assert "so what" in text
    assert "future 1" in text
    assert browser.get_log("browser") == []


def test_view_takes_transcripts_and_the_bundled_dataset_and_refuses_others(tmp_path, capsys):
    lines = [transcript("base", "a", "fine")]
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "bad.jsonl").write_text("{nothing")

    view([str(file), "--output", str(tmp_path / "t.html")])
    view(["demo", "--limit", "3", "--output", str(tmp_path / "demo.html")])

    assert "Open in a browser" in capsys.readouterr().out
    assert "opening of a" in Path(tmp_path / "t.html").read_text()
    assert "3 conversations" in Path(tmp_path / "demo.html").read_text()
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        view([str(tmp_path / "none.jsonl")])
    with pytest.raises(ValueError, match="line 1: not JSON"):
        view([str(tmp_path / "bad.jsonl")])
