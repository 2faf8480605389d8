"""The report in a real browser: the answer first, charts, the table of conversations, escaping."""

import json
import re
from dataclasses import replace

import pytest

from collabllm.evaluation.analysis import analyse, analyse_folder, read_scores
from collabllm.evaluation.names import transcript_file
from collabllm.evaluation.plan import read_plan
from collabllm.evaluation.report.overview import write_report
from collabllm.evaluation.report.summary import write_reports
from collabllm.evaluation.results import ArmInfo, read_results, write_results
from collabllm.servers.usage import UsageLedger
from scripts.view import main as view
from tests.browser import (
    SMALLEST_TEXT,
    is_dark,
    needs_browser,
    screen,
    wait_for,
    wait_until,
)
from tests.evaluation.report_data import ARMS, USERS, write_evaluation

TAG = "<img src=x onerror='window.hacked = 0'>"
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An evaluation of four arms, two users, three openings and twelve tasks."""
    folder = tmp_path_factory.mktemp("evaluations") / "evaluation"
    write_evaluation(folder, users=USERS[:2], num_tasks=12)
    results = analyse_folder(folder)
    write_results(folder, results)
    write_reports(folder, results)
    return folder


@pytest.fixture
def page(folder, browser):
    browser.get("about:blank")
    browser.get((folder / "report.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def choose(browser, name, value):
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", name)).select_by_value(value)


def text_of(browser, selector):
    return browser.find_element("css selector", selector).text


def lines(browser):
    return browser.find_elements("css selector", "#list tr.line")


def count(browser):
    return browser.find_element("id", "count").text


def wait_until_counted(browser, text):
    wait_until(browser, f"document.getElementById('count').textContent === '{text}'")


def open_first(browser):
    lines(browser)[0].find_element("css selector", ".opener").click()
    return wait_for(browser, "#list .message")


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_has_the_answer_and_its_table(folder, browser, width, height, scheme):
    with screen(browser, width, height, scheme):
        browser.get((folder / "report.html").as_uri())
        bottom = browser.execute_script(
            "return document.querySelector('table.answer tbody').getBoundingClientRect().bottom"
        )
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        smallest = browser.execute_script(SMALLEST_TEXT)
        dark = is_dark(browser)

    assert bottom <= height
    assert wide <= width
    assert smallest[0] >= 12, smallest
    assert dark == (scheme == "dark")


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_table_or_head_is_cut(folder, browser, width):
    with screen(browser, width):
        browser.get((folder / "report.html").as_uri())
        choose(browser, "filter-arm", "SFT")
        choose(browser, "filter-other", "base")
        browser.find_element("css selector", "th[data-by=difference] button").click()
        cut = browser.execute_script(
            "return [...document.querySelectorAll('.scroll, table.list th')]"
            ".filter((n) => n.scrollWidth > n.clientWidth + 1).map((n) => n.innerText)"
        )

    assert cut == []


@needs_browser
def test_the_charts_follow_the_chosen_user_opening_and_arm(page):
    first = text_of(page, "#charts table tbody")
    assert first.startswith("base")

    choose(page, "chart-user", "hasty")
    assert text_of(page, "#charts table tbody") != first
    choose(page, "chart-opening", "all")
    titles = [c.text for c in page.find_elements("css selector", "#charts caption")]
    assert titles[0] == "facts used ↑ higher is better"  # none is needed where all is told
    assert "first reply asks ↓ lower is better" in titles
    assert "num tokens" in titles
    choose(page, "chart-against", "SFT+DPO")
    rows = page.find_elements("css selector", "#charts table:first-child tbody tr")
    against = [row.find_elements("tag name", "td")[2].text for row in rows]
    assert against[3] == ""
    assert all("[" in text for text in against[:3])


@needs_browser
def test_the_asking_curve_has_a_panel_a_user_and_its_values_in_a_table(page):
    panels = page.find_elements("css selector", "figure.asking")

    assert [p.find_element("tag name", "figcaption").text for p in panels] == [
        "User sharded",
        "User hasty",
    ]
    assert len(panels[0].find_elements("css selector", "polyline")) == 4
    rows = panels[0].find_elements("css selector", "tbody tr")
    assert [row.text.split()[0] for row in rows] == list(ARMS)
    assert all(row.text.count("[") == 3 for row in rows)


@needs_browser
def test_every_table_has_headers_with_a_scope(page):
    bare = page.execute_script(
        "return [...document.querySelectorAll('th:not([scope])')].map((th) => th.outerHTML)"
    )

    assert bare == []


@needs_browser
def test_what_is_hidden_takes_no_room(page):
    sizes = page.execute_script(
        "return [...document.querySelectorAll('[hidden]')].map((n) => n.getClientRects().length)"
    )

    assert sizes
    assert set(sizes) == {0}


@needs_browser
def test_conversations_are_found_by_task_arm_user_opening_ending_and_text(page):
    assert count(page) == "288 of 288 conversations"
    choose(page, "filter-arm", "SFT")
    choose(page, "filter-user", "hasty")
    choose(page, "filter-opening", "1 of 3 facts told")
    assert count(page) == "12 of 288 conversations"
    page.find_element("id", "filter-task").send_keys("task-1")
    assert count(page) == "3 of 288 conversations"  # task-1, task-10 and task-11
    page.find_element("id", "filter-text").send_keys("WHOLE of task-11:")
    wait_until_counted(page, "1 of 288 conversations")
    page.find_element("id", "filter-text").send_keys(" zebra")
    wait_until_counted(page, "0 of 288 conversations")


@needs_browser
def test_it_shows_where_an_arm_lost_against_another(page):
    choose(page, "filter-arm", "SFT")
    choose(page, "filter-other", "base")
    page.find_element("css selector", "th[data-by=difference] button").click()

    shown = [line.find_elements("css selector", "td")[1].text for line in lines(page)]
    values = [float(text.replace("\u2212", "-")) for text in shown if text != "\u2013"]
    assert values == sorted(values)
    assert values[0] < 0
    head = page.find_element("css selector", "th[data-by=difference]")
    assert head.get_attribute("aria-sort") == "ascending"
    open_first(page)
    wait_for(page, ".side", 2)
    sides = page.find_elements("css selector", ".side h4")
    assert [side.text.split(":")[0] for side in sides] == ["SFT", "base"]
    marked = {mark.text for mark in page.find_elements("css selector", ".side mark")}
    assert marked
    assert "I" not in marked  # both users begin with "I need help with"
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "descending"


@needs_browser
def test_what_is_open_stays_open_while_filtering(page):
    open_first(page)
    goal = page.find_element("css selector", ".detail details")
    goal.find_element("tag name", "summary").click()

    choose(page, "filter-arm", "SFT+DPO")
    page.find_element("id", "filter-text").send_keys("zebra")
    wait_for(page, ".kept")

    wait_until_counted(page, "0 of 288 conversations")
    assert page.find_element("css selector", ".detail details").get_attribute("open") is not None
    page.find_element("id", "close-all").click()
    assert page.find_elements("css selector", ".detail") == []


@needs_browser
def test_a_link_opens_its_conversation(page, folder):
    choose(page, "filter-arm", "SFT")
    open_first(page)
    address = page.find_element("css selector", ".detail a").get_attribute("href")
    assert address.endswith("#c/task-0/SFT/sharded/nothing%20told/0/")

    page.get("about:blank")
    page.get(address)

    wait_for(page, ".detail .message")
    assert text_of(page, "#list .is-open .names").startswith("SFT · sharded · nothing told")
    page.get("about:blank")
    page.get((folder / "report.html").as_uri() + "#c/gone/SFT/%E0%A4%A")
    assert "not on this page" in count(page)


@needs_browser
def test_the_keyboard_walks_and_can_be_switched_off(page):
    from selenium.webdriver.common.keys import Keys

    body = page.find_element("tag name", "body")
    body.send_keys("j")
    page.switch_to.active_element.send_keys("j")
    assert page.switch_to.active_element.text == "task-1"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait_for(page, ".detail .message")
    assert page.switch_to.active_element.get_attribute("aria-expanded") == "true"
    page.switch_to.active_element.send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "filter-text"
    page.find_element("id", "keys").click()
    lines(page)[0].find_element("css selector", ".opener").send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") != "filter-text"
    page.find_element("id", "keys").click()


def test_the_page_asks_nothing_of_the_network(folder):
    page = (folder / "report.html").read_text()

    assert "default-src 'none'" in page
    for word in ("http://", "https://", "@import", "fetch("):
        assert word not in page.replace("http://www.w3.org/2000/svg", "")


def poison(value, keep=()):
    """Add markup to every text but those under the names that `keep` has."""
    if isinstance(value, dict):
        return {k: v if k in keep else poison(v, keep) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(item, keep) for item in value]
    return value + EVIL if isinstance(value, str) else value


def rename(names):
    """Add markup to the names of a dictionary."""
    return {name + EVIL: value for name, value in names.items()}


@needs_browser
def test_markup_in_any_field_shows_as_text(tmp_path, browser):
    arms, users = [f"base{TAG}", f"SFT{TAG}"], [f"sharded{TAG}"]  # they stand in file names
    metric = f"judge{EVIL}"
    write_evaluation(tmp_path, arms=arms, users=users, num_tasks=2, metrics=["facts_used", metric])
    plan = json.loads((tmp_path / "plan.json").read_text())
    for variant in plan["variants"]:
        variant["task_id"] += EVIL
    for arm, user in zip(plan["arms"], [plan["users"][0]] * 2, strict=True):
        arm |= {"system_prompt": EVIL, "model": EVIL, "lora_paths": [EVIL]}
        user["description"] = EVIL
    plan["cluster_by"] = EVIL
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    keep = ("arm", "user", "role")
    lines_of = (tmp_path / "scores.jsonl").read_text().splitlines()
    scores = [poison(json.loads(line), keep) for line in lines_of]
    for score in scores:
        score["values"] |= {metric: 0.5 if score["num_told"] else None}
        score["missing"] = {} if score["num_told"] else {metric: f"dead{EVIL}"}
        score["audit"] = rename({"repeat": True})
        score["tampered"] = [metric, f"cheat{EVIL}"]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(s) + "\n" for s in scores))
    for file in (tmp_path / "transcripts").iterdir():
        records = [poison(json.loads(line), keep) for line in file.read_text().splitlines()]
        for record in records:
            record |= {"error": EVIL, "audit": rename({"repeat": True})}
            record["user_turns"] = [{"response": EVIL, "is_terminal": True}]
            record["messages"].append({"role": f"user{EVIL}", "content": EVIL})
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    results = replace(
        analyse_folder(tmp_path),
        notes=[EVIL],
        date=EVIL,
        command=EVIL,
        commit=EVIL,
        tasks=EVIL,
        settings={EVIL: EVIL},
        versions={EVIL: EVIL},
        prompt_hashes={EVIL: EVIL},
        signatures={EVIL: EVIL},
        usage={EVIL: {"requests": 3, "prompt_tokens": 5, "completion_tokens": 7}},
    )
    report = write_report(tmp_path, results)

    browser.get(report.as_uri())
    for line in range(len(lines(browser))):
        lines(browser)[line].find_element("css selector", ".opener").click()
    wait_for(browser, ".message", 5 * len(lines(browser)))
    browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    shown = browser.find_element("tag name", "body").text
    elsewhere = {
        name: browser.find_element("css selector", name).text
        for name in ("h1", ".answer", ".about", "#charts", "#asking", "#endings", "#settings")
    }
    browser.execute_script("document.querySelectorAll('body *').forEach((n) => n.click?.())")

    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements("css selector", "img") == []
    assert len(browser.find_elements("css selector", "script")) == 4  # a chunk, two data, the code
    for field in ("whole of", "dead", "judge", "repeat", "max_turns", "help with", "user", "cheat"):
        assert re.search(field + ".*window.hacked", shown), field
    assert [name for name, text in elsewhere.items() if "window.hacked" not in text] == []


def test_a_report_is_made_again_from_its_folder(folder, tmp_path):
    again = write_report(folder, path=tmp_path / "again.html")

    assert again.read_text() == (folder / "report.html").read_text()
    view([str(folder)])
    assert again.read_text() == (folder / "report.html").read_text()
    (folder / "report.html").write_text("my notes")
    with pytest.raises(FileExistsError, match="--overwrite"):
        view([str(folder)])
    view([str(folder), "--overwrite"])
    assert again.read_text() == (folder / "report.html").read_text()
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path)


def test_an_incomplete_evaluation_says_so_above_its_table(tmp_path):
    write_evaluation(tmp_path, arms=ARMS[:2], users=USERS[:1], num_tasks=12)
    scores = (tmp_path / "scores.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "scores.jsonl").write_text("".join(scores[:-8]))
    results = analyse_folder(tmp_path)
    page = write_report(tmp_path, results).read_text()

    head = page[page.index("<h1>") : page.index('<table class="answer"')]
    assert "incomplete." in head  # the sentence ends with it
    assert "This evaluation is incomplete: 8 of 72 conversations are" in head
    assert "4 of 12</td>" in page
    assert "8 missing: 0." in page


def test_a_cost_names_the_models_that_it_leaves_out(tmp_path, capsys):
    folder = tmp_path / "e"
    write_evaluation(folder, arms=("base", "sft"), users=("u",), num_tasks=6)
    ledger = UsageLedger()
    ledger.add("user", "gpt-4o-mini", 100_000, 1_000)
    ledger.add("judge", "my-paid-judge", 9_000_000, 1_000_000)
    ledger.add("judge", "another", 1, 1)

    results = analyse(read_plan(folder), read_scores(folder), ledger)
    write_results(folder, results)
    write_reports(folder, results)

    said = "Cost: $0.0156, without another, my-paid-judge: no price is known (--prices)"
    assert said in capsys.readouterr().out
    assert said in (folder / "report.html").read_text()
    assert read_results(folder).without_price == ["another", "my-paid-judge"]
    file = folder / "results.json"
    former = {k: v for k, v in json.loads(file.read_text()).items() if k != "without_price"}
    file.write_text(json.dumps(former))
    assert read_results(folder).cost_usd == pytest.approx(0.0156)


def test_several_trainings_of_one_arm_stand_apart(tmp_path):
    arms = [
        ArmInfo("base", [], [], "default", "m"),
        ArmInfo("SFT", ["run-1", "run-2", "run-3"], ["a", "b", "c"], "default", "m"),
    ]
    scores = write_evaluation(tmp_path, arms=("base", "SFT"), users=USERS[:1], arms_info=arms)
    names = {"base": [""], "SFT": ["run-1", "run-2", "run-3"]}
    lines = [{**s, "training_seed": seed} for s in scores for seed in names[s["arm"]]]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(s) + "\n" for s in lines))
    plain = transcript_file(tmp_path, "SFT", "sharded")
    for seed in names["SFT"]:
        transcript_file(tmp_path, "SFT", "sharded", seed).write_text(plain.read_text())
    page = write_report(tmp_path, analyse_folder(tmp_path)).read_text()

    assert "60 tasks in 12 groups, 3 trainings." in page
    rows = json.loads(page.split('id="index">')[1].split("</script>")[0])["rows"]
    assert len(rows) == 60 * 3 * 4
    assert sorted({row[5] for row in rows}) == ["", "run-1", "run-2", "run-3"]
