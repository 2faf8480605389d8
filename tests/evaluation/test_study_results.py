"""From a study to results: six people end to end, crossed intervals, agreement, sample size."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from benchmarks.evaluation_statistics import cover_crossed, draw_grades
from collabllm.evaluation.hypotheses import sign_flip_test
from collabllm.evaluation.results import read_results
from collabllm.evaluation.study.agreement import agree, compare_with_people, mean_by_place
from collabllm.evaluation.study.analysis import finished_tasks
from collabllm.evaluation.study.crossed import Rating, crossed_difference
from collabllm.evaluation.study.person import Rules, rebuild
from collabllm.evaluation.study.sample_size import people_needed, power_of
from collabllm.evaluation.study.store import open_study, read_answers
from collabllm.servers.kept_usage import read_usage
from scripts.evaluate import main as evaluate
from scripts.study import main as study_script
from tests.browser import needs_browser, screen
from tests.evaluation.study_people import Participant
from tests.evaluation.test_results import make_adapter
from tests.evaluation.test_study import hosted, make_study
from tests.fake_server import FakeServer, user_json
from tests.pages import client_of

ARMS = ("walnut", "hazel")


class Judge(Participant):
    """Grades `hazel` two higher, by what it writes, and prefers it."""

    def action(self, state):
        action = super().action(state)
        if action["kind"] == "rate_task":
            good = "HAZEL" in json.dumps(state["messages"])
            return {**action, "interaction": 4 if good else 2, "result": 5 if good else 3}
        if action["kind"] == "preference":
            said = ["HAZEL" in json.dumps(talk) for talk in state["talks"]]
            return {**action, "choice": 1 + said.index(True)}
        return action


def answer(body):
    if body["model"] == "user":
        return user_json("tell me more")
    return "HAZEL asks: when is it?" if body["model"] == "hazel" else "Here is something."


def write_tasks(path):
    facts = [{"name": "when", "answer": "On Friday.", "cues": ["when"], "value": "Friday"}]
    tasks = [
        {"task_id": f"t{i}", "single_turn_prompt": f"Party {i}", "opening": f"A party {i}!"}
        for i in range(3)
    ]
    path.write_text("".join(json.dumps({**task, "facts": facts}) + "\n" for task in tasks))
    return str(path)


@pytest.fixture(scope="module")
def six_people(tmp_path_factory):
    """A study of six people by the script, an evaluation of the same arms, and its folders."""
    root = tmp_path_factory.mktemp("study")
    tasks, folder, evaluation = write_tasks(root / "tasks.jsonl"), root / "study", root / "e"
    with FakeServer(answer) as server:
        arms = []
        for name in ARMS:
            arms += ["--arm", f"name={name},model={name},base_url={server.url}"]
        common = [*arms, "--tasks", tasks]
        command = [sys.executable, "scripts/study.py", *common, "--participants", "6"]
        process = subprocess.Popen(
            [*command, "--port", "0", "--output_dir", str(folder), "--min_turns", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        links = (folder / "links.txt").read_text().split()
        split = [link.split("/p/") for link in links]
        with ThreadPoolExecutor(6) as pool:
            people = [Judge(url, code, n) for n, (url, code) in enumerate(split, start=1)]
            list(pool.map(Judge.run, people))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        evaluate([*common, "--output_dir", str(evaluation), "--max_turns", "2"])
    assert process.returncode == 130
    assert "the same command goes on with it" in errors
    events = [event for events in read_answers(folder).values() for event in events]
    replies = [event for event in events if event["kind"] == "reply"]
    assert read_usage(folder).by_role()["assistant"].requests == len(replies) > 0
    evaluate(["--study", str(folder), "--agree_with", str(evaluation)])
    return folder


def test_six_people_are_paired_in_results_and_report(six_people):
    results = json.loads((six_people / "report/results.json").read_text())

    primary = [d for d in results["differences"] if d["primary"]]
    assert [(d["metric"], d["arm"], d["mean"]) for d in primary] == [
        ("result", "hazel", 2.0),
        ("interaction", "hazel", 2.0),
    ]
    assert [(d["num_tasks"], d["wins"], d["losses"]) for d in primary] == [(6, 6, 0)] * 2
    preferred = next(d for d in results["differences"] if d["metric"] == "preferred")
    assert preferred["mean"] == 1.0
    notes = " ".join(results["notes"])
    assert "Of 6 links 6 people took part and 0 did not agree; 6 finished, with 12" in notes
    assert "hazel against walnut in result, with 6 people and 3 tasks as crossed" in notes
    assert "+2.00; too few for an interval that holds for others" in notes
    assert "with users, metrics and openings, the best 4 by lower bound follow" in notes
    assert "facts_elicited with user sharded orders two arms as people's result does in 3 of 3" in (
        notes
    )
    page = (six_people / "report/report.html").read_text()
    assert "6 people" in page
    assert "could show" not in page  # all six differ alike: nothing is known of the spread
    assert "paired by person" in page
    agreement = json.loads((six_people / "report/agreement.json").read_text())
    assert {one["user"] for one in agreement} == {"sharded"}


@needs_browser
def test_the_report_of_a_study_opens(six_people, browser):
    with screen(browser, 390):
        browser.get((six_people / "report/report.html").as_uri())
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        sentence = browser.find_element("tag name", "h1").text

    assert "6 people" in sentence
    assert wide <= 390
    assert browser.get_log("browser") == []


def test_a_study_on_tasks_that_an_arm_was_trained_on_is_refused(tmp_path):
    arm = f"name=trained,lora_path={make_adapter(tmp_path / 'sft')}"

    with pytest.raises(ValueError, match=r"Arm trained was trained on .*--held_out_of"):
        study_script(["--arm", "name=base", "--arm", arm, "--output_dir", str(tmp_path / "study")])
    assert not (tmp_path / "study").exists()


def test_a_study_that_is_under_way_says_what_is_missing(tmp_path):
    with hosted(tmp_path, make_study()) as (host, url):
        codes = list(host.codes)
        Participant(url, codes[0], 1, hasty=False).run()
        with client_of(url) as client:
            body = {"step": 0, "action": {"kind": "consent", "agree": True}}
            client.post(f"/p/{codes[1]}/act", json=body)
    evaluate(["--study", str(tmp_path)])

    results = json.loads((tmp_path / "report/results.json").read_text())
    notes = " ".join(results["notes"])
    assert "This study is incomplete: 2 of 4 grades of an arm by a person are missing" in notes
    assert "can go on by the same link" in notes
    assert "--resume" not in notes
    assert "Of 4 links 2 people took part and 0 did not agree; 1 finished" in notes
    open_study(tmp_path / "new", make_study())
    with pytest.raises(ValueError, match="nobody has graded a task yet"):
        evaluate(["--study", str(tmp_path / "new")])


def test_a_study_with_fewer_tasks_a_person_than_arms_can_be_complete(tmp_path):
    study = make_study(arms=["walnut", "hazel", "beech"], participants=3, tasks_each=2)
    with hosted(tmp_path, study) as (host, url):
        for code, number in host.codes.items():
            Participant(url, code, number, hasty=False).run()
    evaluate(["--study", str(tmp_path)])

    results = read_results(tmp_path / "report")
    assert results.complete
    assert [(p.planned, p.done) for p in results.progress] == [(2, 2)] * 3
    assert {(c.num_planned, c.num_missing) for c in results.cells} == {(2, 0)}
    assert {(d.num_planned, d.num_tasks) for d in results.differences} == {(1, 1)}
    assert all(d.worst_low == d.mean == d.worst_high for d in results.differences)
    notes = " ".join(results.notes)
    assert "incomplete" not in notes
    assert "hazel against walnut in result: the arms cannot be told apart" in notes


@pytest.mark.parametrize(
    ("arms", "choice", "expected"),
    [
        ("AB", 1, {"A": 1.0, "B": 0.0}),
        ("AB", 0, {"A": 0.5, "B": 0.5}),
        ("ABAB", 3, {"A": 1.0, "B": 0.0}),
        ("ABAB", 0, {"A": 0.5, "B": 0.5}),
        ("ABC", 2, {"A": 0.0, "B": 1.0, "C": 0.0}),
        ("ABC", 0, {"A": 1 / 3, "B": 1 / 3, "C": 1 / 3}),
    ],
)
def test_a_preference_is_for_an_arm_however_many_tasks_it_helped_with(arms, choice, expected):
    dealt = [{"task_id": f"t{i}", "arm": arm} for i, arm in enumerate(arms)]
    events = [{"kind": "consent", "at": 0.0, "agree": True, "assignment": dealt}]
    for i in range(len(arms)):
        mark = {"task_idx": i, "task_id": f"t{i}", "at": 1.0 + i}
        events += [
            {**mark, "kind": "message", "text": "x"},
            {**mark, "kind": "reply", "text": "y", "tokens": 1, "waited_s": 1.0},
            {**mark, "kind": "finish"},
            {**mark, "kind": "rate_task", "interaction": 3, "result": 3, "why": ""},
        ]
    events.append({"kind": "preference", "at": 99.0, "choice": choice, "why": ""})

    tasks = list(finished_tasks(rebuild(1, Rules(1, 0), events)))

    assert [task.values["preferred"] for task in tasks] == [expected[arm] for arm in arms]


def crossed_sample(generator, effect, num_people=24, num_tasks=8, interaction=0.5):
    """Draw grades of people with two tasks each, both samples, and arms that suit tasks."""
    people, tasks = generator.normal(0, 1, num_people), generator.normal(0, 1, num_tasks)
    suits = generator.normal(0, interaction, num_tasks)
    ratings = []
    for person in range(num_people):
        chosen = [(2 * (person // 2) + i) % num_tasks for i in (0, 1)]
        for place, task in enumerate(chosen):
            is_arm = (place + person) % 2 == 0
            value = people[person] + tasks[task] + generator.normal(0, 0.7)
            value += is_arm * (effect + suits[task])
            ratings.append(Rating(str(person), str(task), is_arm, float(value)))
    return ratings


@pytest.mark.parametrize("interaction", [0.0, 0.5])
def test_crossed_intervals_hold_the_truth_as_often_as_they_say(interaction):
    generator = np.random.default_rng(0)
    covered, number = 0, 400
    for _ in range(number):
        found = crossed_difference(crossed_sample(generator, 0.4, interaction=interaction))
        covered += found.low <= 0.4 <= found.high

    assert 0.92 <= covered / number <= 0.995


@pytest.mark.parametrize(
    ("num_arms", "num_people"), [(2, 12), (2, 24), (3, 18), (3, 30), (4, 24), (4, 40)]
)
def test_crossed_intervals_of_few_latin_squares_hold_the_truth(num_arms, num_people):
    covered, _ = cover_crossed(num_arms, num_people, 300)

    assert 0.92 <= covered <= 0.99


@pytest.mark.parametrize(("num_arms", "num_people"), [(2, 10), (3, 15)])
def test_five_latin_squares_are_too_few_for_an_interval(num_arms, num_people):
    ratings = draw_grades(
        np.random.default_rng(0), num_arms=num_arms, num_people=num_people, num_tasks=200
    )

    found = crossed_difference(ratings)

    assert (found.low, found.high) == (None, None)


def test_people_and_tasks_that_say_nothing_of_the_arms_do_not_count():
    # Of a square of three people with two tasks each, one person has both arms.
    ratings = draw_grades(
        np.random.default_rng(0), num_arms=3, num_people=18, num_tasks=200, tasks_each=2
    )

    found = crossed_difference(ratings)

    assert found is None, "nobody did the same two tasks the other way round"
    assert crossed_difference([]) is None


def test_grades_that_are_all_alike_give_no_interval():
    ratings = [
        Rating(f"p{person}", f"t{task}", bool((person + task) % 2), 5.0)
        for person in range(24)
        for task in range(8)
    ]

    found = crossed_difference(ratings)

    assert found is not None
    assert abs(found.mean) < 1e-9
    assert (found.low, found.high) == (None, None)


def test_a_difference_that_leaves_no_errors_has_no_interval():
    ratings = draw_grades(
        np.random.default_rng(0), num_arms=3, num_people=24, num_tasks=8, tasks_each=2
    )

    found = crossed_difference(ratings)

    assert found.num_people < 24
    assert (found.low, found.high) == (None, None)


def test_crossed_differences_take_out_people_and_tasks():
    # By hand: person 1 is one grade kinder, task b one grade harder, the arm is two better.
    grades = {("1", "a"): 4.0, ("1", "b"): 1.0, ("2", "a"): 1.0, ("2", "b"): 2.0}
    arms = {("1", "a"), ("2", "b")}
    ratings = [Rating(p, t, (p, t) in arms, v) for (p, t), v in grades.items()]

    found = crossed_difference(ratings)

    assert found.mean == pytest.approx(2.0)
    assert (found.low, found.num_people, found.num_tasks) == (None, 2, 2)
    same = [Rating("1", "a", True, 3.0), Rating("2", "a", True, 4.0)]
    assert crossed_difference(same) is None


def test_agreement_counts_pairs_that_differ_in_both():
    people = {("t1", "a"): 1.0, ("t1", "b"): 2.0, ("t2", "a"): 3.0, ("t2", "b"): 3.0}
    people |= {("t3", "a"): 5.0, ("t3", "b"): 1.0}
    simulated = {**people, ("t3", "a"): 0.0, ("t3", "b"): 0.5, ("t4", "a"): 1.0}

    found = agree("sharded", "m", "all", "result", simulated, people)

    assert (found.num_pairs, found.num_same, found.num_cells) == (2, 1, 6)
    assert "in 1 of 2 tasks and pairs" in str(found)
    nothing = agree("u", "m", "all", "result", {}, people)
    assert (nothing.num_pairs, nothing.rank_correlation) == (0, None)
    assert "share no task" in str(nothing)


def test_the_pairs_of_a_task_are_not_independent():
    arms = "abcd"
    people = {(f"t{i}", arm): float(idx) for i in range(6) for idx, arm in enumerate(arms)}

    found = agree("sharded", "m", "all", "result", people, people)

    assert (found.num_tasks, found.num_pairs, found.num_same) == (6, 36, 36)
    assert found.low == pytest.approx(0.025 ** (1 / 6))  # of six tasks, not of 36 pairs


def test_openings_with_opposite_directions_are_compared_each_by_itself():
    scores = [
        {
            "task_id": f"t1+{opening}",
            "user": "u",
            "arm": arm,
            "opening": opening,
            "values": {"first_reply_asks": value},
        }
        for opening in ("none", "all")
        for arm, value in (("asks", 1.0), ("never", 0.0))
    ]
    people = {"result": mean_by_place([("t1", "asks", 5.0), ("t1", "never", 2.0)])}

    found = compare_with_people(scores, {"t1+none": "t1", "t1+all": "t1"}, people)

    assert [(one.opening, one.num_pairs, one.num_same) for one in found] == [
        ("all", 1, 0),
        ("none", 1, 1),
    ]


def test_metrics_where_less_is_better_are_turned_round():
    scores = [
        {"task_id": "t1+3", "user": "u", "arm": arm, "values": {"over_asking": value}}
        for arm, value in (("a", 0.9), ("b", 0.1))
    ]
    people = {"result": mean_by_place([("t1", "a", 1.0), ("t1", "b", 5.0)])}

    (found,) = compare_with_people(scores, {"t1+3": "t1"}, people)

    assert (found.num_pairs, found.num_same) == (1, 1)


@pytest.mark.parametrize(("difference", "spread"), [(0.5, 1.3), (1.0, 1.0)])
def test_as_many_people_as_planned_have_the_power_that_was_wanted(difference, spread):
    number = people_needed(difference, spread)
    generator = np.random.default_rng(0)
    samples = generator.normal(difference, spread, (2000, number))

    first = 0.05 * 0.9 / 2  # two grades share nine tenths of the error rate
    shown = float((ttest_1samp(samples, 0, axis=1).pvalue < first).mean())

    assert 0.78 <= shown <= 0.9  # a whole number of people
    assert power_of(number - 2, difference, spread, first) < 0.8


@pytest.mark.parametrize(
    ("difference", "spread", "number"),
    [(1.5, 0.7, 8), (4.0, 0.2, 8), (2.0, 1.3, 8), (1.0, 0.7, 10), (1.5, 1.3, 12)],
)
def test_few_people_as_planned_have_that_power_by_the_test_of_the_report(
    difference, spread, number
):
    samples = np.random.default_rng(1).normal(difference, spread, (1000, number))

    shown = float((sign_flip_test(samples, np.arange(number)) < 0.0225).mean())

    assert people_needed(difference, spread) == number
    assert shown >= 0.77
    if number == 8:  # with six nothing reaches that level, whatever they say
        assert power_of(6, difference, spread, 0.0225) == 0.0


def test_more_arms_and_fewer_tasks_take_more_people(capsys):
    assert people_needed(0.5, 1.3) == 70
    three = people_needed(0.5, 1.3, num_arms=3)
    assert three > 70
    assert people_needed(0.5, 1.3, num_arms=3, tasks_each=2) > 2 * three
    arms = ["--arm", "name=a", "--arm", "name=b,system_prompt=proactive"]
    study_script([*arms, "--plan", "0.5"])
    said = capsys.readouterr().out
    assert "70 people show a true difference of 0.5 grades" in said
    assert "the report's test at 2.25%, as it corrects two grades of 1 arm(s)" in said
    for wrong in ({"difference": 0.0}, {"num_arms": 1}, {"tasks_each": 1}, {"spread": 0.0}):
        with pytest.raises(ValueError, match=r"--(plan|tasks_each)"):
            people_needed(**{"difference": 0.5, "spread": 1.0, **wrong})
