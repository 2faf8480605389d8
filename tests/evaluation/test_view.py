"""scripts/view.py: transcripts, folders, datasets with their candidates, limits, safe writing."""

import json
import tracemalloc
from pathlib import Path

import pytest

from collabllm.evaluation.report.candidates import show_turns
from collabllm.evaluation.report.conversations import Conversation
from collabllm.evaluation.report.page import render
from scripts.view import main as view
from tests.browser import needs_browser, wait_for, wait_until


def transcript(task="a", text="fine", **more):
    return {
        "task_id": task,
        "rollout_idx": 0,
        "single_turn_prompt": f"goal of {task}",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": text}],
        "user_turns": [],
        "termination_reason": "max_turns",
        "error": "",
        "failed": False,
        "audit": {},
        "assistant": "base",
        "user": "sharded",
        **more,
    }


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def rows_of(page):
    data = page.read_text().split('id="index">')[1].split("</script>")[0]
    return json.loads(data)["rows"]


def turn(prompt, replies, **more):
    return [
        {"conv_id": 0, "prompt": prompt, "completion": text, "score": score, **more}
        for text, score in replies.items()
    ]


def user(text):
    return {"role": "user", "content": text}


def reply(text):
    return {"role": "assistant", "content": text}


FIRST = turn([user("hi")], {"best": 0.9, "worse": 0.1})


def replies_of(rows):
    shown = show_turns(0, rows).messages
    return [
        (m["content"], [c["text"] for c in m["candidates"] if c["chosen"]], m["why"])
        for m in shown
        if "candidates" in m
    ]


def test_a_dataset_shows_the_reply_that_the_next_prompt_has_though_another_scored_better():
    rows = [*FIRST, *turn([user("hi"), reply("worse"), user("go on")], {"end": 0.5})]

    first, last = replies_of(rows)

    assert first == ("worse", ["worse"], "went on with a lower-scored (0.100 against 0.900)")
    assert last == ("end", [], "nothing follows; shown is the only candidate")


def test_a_dataset_shows_a_reply_that_is_no_candidate():
    rows = [*FIRST, *turn([user("hi"), reply("edited"), user("go on")], {"end": 0.5})]

    assert replies_of(rows)[0] == (
        "edited",
        [],
        "went on with another reply, which is no candidate",
    )


def test_a_dataset_says_where_nothing_tells_how_a_conversation_went_on():
    (alone,) = replies_of(FIRST)
    branch = turn([user("hello"), reply("best"), user("go on")], {"end": 0.5})
    first, _ = replies_of([*FIRST, *branch])
    marked, _ = turn([user("hi")], {"best": 0.9, "worse": 0.1})
    flagged = replies_of([marked, {**FIRST[1], "chosen": True}])

    assert alone[1:] == ([], "nothing follows; shown is the best-scored (0.900 against 0.100)")
    assert first[2].startswith("the next turn begins otherwise")
    assert flagged[0][:2] == ("worse", ["worse"])


@needs_browser
def test_candidates_show_scores_rewards_and_futures(tmp_path, browser):
    rows = [*FIRST, *turn([user("hi"), reply("best"), user("go on")], {"end": 0.5})]
    rows[0] |= {"rewards": {"total": [0.8, 1.0]}, "standard_error": 0.1}
    rows[0]["sessions"] = [[reply("a future")]]
    rows = [{"single_turn_prompt": "g", "single_turn_completion": "c", **row} for row in rows]
    view([write(tmp_path / "data.jsonl", rows)])

    browser.get((tmp_path / "data.html").as_uri())
    browser.find_element("css selector", ".opener").click()
    wait_for(browser, ".candidates")[0].find_element("tag name", "summary").click()

    text = browser.find_element("css selector", ".detail").text
    assert "2 candidates; went on with the best-scored (0.900 against 0.100)" in text
    assert "0.9 ± 0.1 · the conversation's" in text
    assert "total [0.8,1]" in text
    assert "Future 1" in text
    assert browser.get_log("browser") == []


def test_a_page_stands_beside_its_file_and_never_on_another(tmp_path, capsys):
    one = write(tmp_path / "one/t.jsonl", [transcript("a")])
    two = write(tmp_path / "two/t.jsonl", [transcript("b")])
    for file in (one, two, one):  # the second time it gives way to itself
        view([file])
    mine = tmp_path / "mine.html"
    mine.write_text("<p>my notes</p>")

    assert f"Open in a browser: {tmp_path / 'one/t.html'}" in capsys.readouterr().out
    assert [rows_of(tmp_path / f"{n}/t.html")[0][0] for n in ("one", "two")] == ["a", "b"]
    for target in (mine, tmp_path / "two/t.html"):
        before = target.read_text()
        with pytest.raises(FileExistsError, match=r"no former page of the same source.*overwrite"):
            view([one, "--output_file", str(target)])
        assert target.read_text() == before
    view([one, "--output_file", str(mine), "--overwrite"])
    assert rows_of(mine)[0][0] == "a"


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\n \n"])
@pytest.mark.parametrize("records", [FIRST, [transcript("a"), transcript("b")]])
def test_a_byte_order_mark_and_blank_lines_are_read_over(tmp_path, before, records):
    file = Path(write(tmp_path / "data.jsonl", records))
    file.write_bytes(before + file.read_bytes())

    view([str(file)])

    assert len(rows_of(tmp_path / "data.html")) == (1 if records is FIRST else 2)


def test_a_bad_first_line_is_that_of_a_dataset_or_of_transcripts(tmp_path):
    rows, talks = tmp_path / "rows.jsonl", tmp_path / "talks.jsonl"
    for file, records in ((rows, FIRST), (talks, [transcript("a")])):
        file.write_text("{oops\n" + Path(write(file, records)).read_text())

    with pytest.raises(ValueError, match=r"rows\.jsonl row 1: not valid JSON"):
        view([str(rows)])
    with pytest.raises(ValueError, match=r"talks\.jsonl line 1: not a record"):
        view([str(talks)])
    view([str(rows), "--skip_bad_rows"])

    assert len(rows_of(tmp_path / "rows.html")) == 1


@pytest.mark.parametrize("begun", ["", '{"task_id": "b", "mess'])
def test_a_folder_of_a_run_under_way_shows_what_has_ended(tmp_path, caplog, begun):
    write(tmp_path / "a.jsonl", [transcript("a")])
    (tmp_path / "b.jsonl").write_text(begun)

    view([str(tmp_path)])

    assert [row[0] for row in rows_of(tmp_path / "conversations.html")] == ["a"]
    assert "b.jsonl: no line of it is whole JSON" in caplog.text


def test_a_folder_of_transcripts_is_one_page(tmp_path):
    write(tmp_path / "a.jsonl", [transcript("a")])
    write(tmp_path / "sub/b.jsonl", [transcript("b"), transcript("c")])
    write(tmp_path / "scores_of_something.jsonl", [{"score": 1}])
    view([str(tmp_path)])

    assert [row[0] for row in rows_of(tmp_path / "conversations.html")] == ["a", "b", "c"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file in this folder has transcripts"):
        view([str(tmp_path / "empty")])


def test_what_a_limit_leaves_out_is_said_in_the_page_and_in_the_log(tmp_path, caplog):
    file = write(tmp_path / "t.jsonl", [transcript(str(i)) for i in range(5)])
    view([file, "--limit", "2"])

    said = "The first 2 of 5 conversations; --limit 0 shows all."
    assert said in (tmp_path / "t.html").read_text()
    assert said in caplog.text
    view([file, "--limit", "0"])
    assert len(rows_of(tmp_path / "t.html")) == 5
    assert "The first 2 of" not in (tmp_path / "t.html").read_text()
    view(["demo", "--limit", "3", "--output_file", str(tmp_path / "demo.html")])
    assert len(rows_of(tmp_path / "demo.html")) == 3


@needs_browser
def test_lone_surrogates_and_numbers_that_are_none_do_not_stop_a_page(tmp_path, browser):
    odd = "half \ud83d of a pair"
    record = transcript(f"t{odd}", odd, error=odd, audit={odd: True})
    view([write(tmp_path / "t.jsonl", [record])])
    rows = [{"single_turn_prompt": "g", "single_turn_completion": "c", **row} for row in FIRST]
    rows[0]["rewards"] = {"total": [float("nan"), 1.0]}
    view([write(tmp_path / "d.jsonl", rows)])

    for name in ("t", "d"):
        browser.get((tmp_path / f"{name}.html").as_uri())
        browser.find_element("css selector", ".opener").click()
        wait_for(browser, ".message")
        assert browser.get_log("browser") == []


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        view([str(tmp_path / "none.jsonl")])
    (tmp_path / "bad.jsonl").write_text("{nothing")
    with pytest.raises(ValueError, match="row 1: not valid JSON"):
        view([str(tmp_path / "bad.jsonl")])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no rows"):
        view([str(tmp_path / "empty.jsonl")])
    assert not list(Path(tmp_path).glob("*.html"))


def test_a_malformed_row_of_a_dataset_is_named_and_may_be_left_out(tmp_path, caplog):
    file = tmp_path / "chats.jsonl"
    good = {"messages": [{"role": r, "content": r} for r in ("user", "assistant")]}
    file.write_text(json.dumps(good) + '\n{"messages": 3}\n')

    with pytest.raises(ValueError, match="row 2.*--skip_bad_rows"):
        view([str(file)])
    view([str(file), "--skip_bad_rows"])
    assert "1 bad rows are skipped" in caplog.text
    assert file.with_suffix(".html").is_file()


def make_conversations(number, num_letters):
    for idx in range(number):
        messages = [{"role": "user", "content": f"{idx} " + "word " * (num_letters // 5)}]
        yield Conversation(f"task {idx}", "base", messages=messages)


def test_a_page_of_any_length_needs_little_memory(tmp_path):
    tracemalloc.start()
    render(tmp_path / "p.html", title="t", conversations=make_conversations(1500, 20_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(rows_of(tmp_path / "p.html")) == 1500
    assert peak < 20e6  # of 30 MB of texts; a hundred conversations are 2 MB


@needs_browser
def test_the_browser_unpacks_only_what_is_opened(tmp_path, browser):
    conversations = make_conversations(250, 50)
    render(tmp_path / "p.html", title="t", conversations=conversations)

    browser.get((tmp_path / "p.html").as_uri())
    assert browser.execute_script("return table.unpacked.size") == 0
    assert len(browser.find_elements("css selector", "#list tr.line")) == 50
    browser.find_element("css selector", ".opener").click()
    wait_for(browser, ".message")
    assert browser.execute_script("return table.unpacked.size") == 1
    browser.find_element("id", "filter-text").send_keys("249")
    wait_until(browser, "document.getElementById('count').textContent.startsWith('1 of')")
    assert browser.get_log("browser") == []
