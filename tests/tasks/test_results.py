"""A copy of what the user said is no result; work on the task is one."""

from collections.abc import Callable

import pytest

from collabllm.simulation import RuleBasedUser
from collabllm.tasks import Fact, Task, demo_tasks
from collabllm.tasks.embeddings import has_bundled_encoder
from collabllm.tasks.matching import find_questions
from collabllm.tasks.requests import cut_questions
from collabllm.tasks.results import find_work, is_result, share_of_values_used

needs_encoder = pytest.mark.skipif(not has_bundled_encoder(), reason="no bundled encoder")

FACTS = (
    Fact("guests", "We are 12.", ("guests",), "12", "How many guests?"),
    Fact("place", "At the lake.", ("where",), "at the lake", "Where is it?"),
)
TASK = Task("t", "Plan a party for 12 at the lake.", opening="plan a party", facts=FACTS)
SAID = "plan a party We are 12. At the lake."
PARTY = "Party at the lake for 12: boats from three, grill and lemonade, music until ten."


@pytest.mark.parametrize(
    "reply",
    [
        "",
        f"Got it: {SAID}",
        "Here is a summary of your request:\n- Guests: we are 12\n- Place: at the lake",
        "How many guests? We are 12. Where is it? At the lake.",
        "You want to plan a party at the lake, and you are 12. Thank you for all these details!",
    ],
)
def test_a_copy_of_what_the_user_said_is_no_result(reply):
    assert not is_result(reply, SAID, facts=FACTS, goal=TASK.single_turn_prompt)
    assert share_of_values_used(TASK, reply, SAID) == 0.0


@needs_encoder
def test_words_about_something_else_are_no_result():
    talk = "The engine turns quickly, its pistons pump oil, and valves open under pressure."

    assert not is_result(f"{SAID} {talk}", SAID, facts=FACTS, goal=TASK.single_turn_prompt)
    assert is_result(PARTY, SAID, facts=FACTS, goal=TASK.single_turn_prompt)


def test_a_short_reference_asks_for_no_more_than_it_has():
    assert is_result("42", "What is six times seven?", reference="42")
    assert not is_result("Thanks!", "What is six times seven?", reference="42")


def test_values_count_in_a_result_alone_and_numbers_in_words_too():
    assert share_of_values_used(TASK, PARTY, SAID) == 1.0
    assert share_of_values_used(TASK, PARTY.replace("12", "twelve"), SAID) == 1.0
    assert share_of_values_used(TASK, PARTY.replace("at the lake", "outside"), SAID) == 0.5
    with pytest.raises(ValueError, match="Task x: no fact has a value"):
        share_of_values_used(Task("x", "g"), PARTY, SAID)


def test_what_was_copied_is_cut_out_of_a_sentence():
    assert find_work("I plan a party with boats and music.", SAID) == "I with boats and music."


@pytest.mark.parametrize("mark", ["- ", "* ", "1. ", "1) ", "(1) ", ""])
def test_questions_are_no_work_whatever_stands_before_them(mark):
    reply = f"Sure.\n{mark}Which boats and which music shall we order?\n{mark}Is `grill` fine, too?"

    assert find_work(reply, SAID) == ""
    assert find_work(f"{reply}\n{PARTY}", "plan a party") != ""


def test_the_user_ends_for_work_and_not_for_an_echo():
    user = RuleBasedUser.from_task(TASK, matcher="cues")
    talk = [
        {"role": "user", "content": "plan a party"},
        {"role": "assistant", "content": "How many guests? Where?"},
        {"role": "user", "content": "We are 12. At the lake."},
    ]

    def answer(reply):
        return user.generate([*talk, {"role": "assistant", "content": reply}])

    assert not answer(f"Got it: {SAID}").is_terminal
    assert answer(f"{PARTY} Let me know if you'd like changes!").is_terminal


@needs_encoder
@pytest.mark.parametrize(
    ("write", "least", "most"),
    [
        (lambda task, said, other: task.single_turn_completion, 0.98, 1.0),
        (lambda task, said, other: f"Got it: {said}", 0.0, 0.0),
        (lambda task, said, other: f"{said} {other.single_turn_completion}", 0.0, 0.12),
    ],
    ids=["reference", "echo", "another task's result"],
)
def test_on_the_banks_test_side_results_count_and_shortcuts_do_not(
    write: Callable[[Task, str, Task], str], least: float, most: float
):
    tasks = [task for task in demo_tasks("test") if task.facts]
    shares = []
    for task, other in zip(tasks, tasks[7:] + tasks[:7], strict=True):
        said = " ".join([task.opening, *(fact.answer for fact in task.facts)])
        shares.append(share_of_values_used(task, write(task, said, other), said))

    assert least <= sum(shares) / len(shares) <= most


def test_offers_ask_for_nothing():
    assert find_questions("Let me know if you need more. Is there anything else I can do?") == []
    assert find_questions("Would you like me to adjust it? How many guests?") == [
        "How many guests?"
    ]
    assert cut_questions("## Games at three?\n> Cake at four?").strip() == ""
    assert find_questions("Let me know your budget.") == ["Let me know your budget."]
