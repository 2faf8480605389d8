"""`facts_used` pays for work with what the user told, and for nothing else."""

import asyncio

import pytest

from collabllm.rewards import MetricTools
from collabllm.rewards.registry import score_conversation
from collabllm.tasks import Fact, Task
from collabllm.tasks.embeddings import has_bundled_encoder
from collabllm.tasks.results import rate_result

pytestmark = pytest.mark.skipif(not has_bundled_encoder(), reason="no bundled encoder")

PLAN = (
    "Plan for the 6th birthday: treasure hunt at noon for 12 guests, then cake with candles, "
    "dancing to music, painting masks, and every child takes a balloon home."
)
TASK = Task(
    "party",
    "Plan a party. It's a 6th birthday. There will be 12 guests.",
    PLAN,
    opening="Plan a party.",
    facts=(
        Fact("age", "It's a 6th birthday.", ("old", "age"), "6th", "How old is the child?"),
        Fact("guests", "There will be 12 guests.", ("many",), "12", "How many guests?", 3.0),
    ),
)
TOLD = "It's a 6th birthday. There will be 12 guests."


def used(*texts):
    roles = ("user", "assistant")
    talk = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    values = asyncio.run(score_conversation(talk, TASK, ["facts_used"], MetricTools()))
    return values["facts_used"].value


def test_a_result_counts_wherever_it_stands():
    assert used("Plan a party.", "Age? Guests?", TOLD, PLAN) == pytest.approx(1.0)
    assert used("Plan a party.", "?", TOLD, PLAN, "thanks", "You are welcome!") == pytest.approx(
        1.0
    )


def test_facts_count_by_their_weight_and_only_when_they_were_told():
    assert used("Plan a party.", PLAN) == 0.0  # a lucky guess of both
    assert used("Plan a party.", "Age?", "It's a 6th birthday.", PLAN) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "reply",
    [
        f"Got it: Plan a party. {TOLD}",
        f"Thank you for all of these helpful details! {TOLD} Everything is now finished. Enjoy it!",
        "- age: 6th\n- guests: 12",
        "The 6th engine of 12 turns quickly, pistons pump oil, valves open under high pressure.",
        "",
    ],
)
def test_words_without_work_count_nothing(reply):
    assert used("Plan a party.", "Age? Guests?", TOLD, reply) == 0.0


def test_another_wording_is_work_and_less_of_it_counts_less():
    said = f"Plan a party. {TOLD}"
    rest = " Borrow benches, write names on cups, hang lanterns, prepare sandwiches and lemonade."
    other = (
        "For a 6th birthday with 12 guests, start with a treasure hunt in the garden, serve cake, "
        "let the children dance and paint masks, and give each one a balloon at the end."
    )
    short = "A 6th birthday for 12: treasure hunt, cake with candles, masks, balloon."

    assert rate_result(other, said, facts=TASK.facts, reference=PLAN) > 0.9
    assert 0.3 < rate_result(short, said, facts=TASK.facts, reference=PLAN + rest) < 0.9
