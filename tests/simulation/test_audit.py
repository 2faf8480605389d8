"""What the audit says of users: faults, and how they talk beside people."""

import pytest

from collabllm.simulation.audit import AuditRates, audit_conversation, measure_user
from collabllm.simulation.user_models import UserTurnResult
from collabllm.tasks import Fact

GOAL = "Plan a party for 12 guests at the lake in June."
FACTS = (
    Fact("guests", "We are 12.", ("guests", "many"), "12"),
    Fact("place", "At the lake.", ("where",), "lake", "lake, garden, hall"),
    Fact("month", "In June.", ("when",), "June"),
)


def make_talk(*texts):
    return [
        {"role": ("user", "assistant")[idx % 2], "content": text} for idx, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        ("We are 12.", False),
        ("twelve", False),
        ("We are 30.", True),
        ("Not sure yet.", False),
    ],
)
def test_a_number_that_the_goal_does_not_have_is_told_wrongly(answer, is_wrong):
    talk = make_talk("plan a party", "How many guests?", answer)

    assert audit_conversation(talk, GOAL, facts=FACTS)["told_wrongly"] is is_wrong


def test_another_option_than_the_wanted_one_is_told_wrongly():
    asked = ("plan a party", "Where?")

    assert audit_conversation(make_talk(*asked, "in the hall"), GOAL, facts=FACTS)["told_wrongly"]
    assert not audit_conversation(make_talk(*asked, "the lake"), GOAL, facts=FACTS)["told_wrongly"]


def test_slips_that_the_user_marked_are_faults_of_the_user():
    turns = [UserTurnResult("a", slips=("told_wrongly",)), UserTurnResult("b", slips=("cut",))]

    found = audit_conversation(make_talk("hi"), GOAL, user_turns=turns)

    assert [name for name, there in found.items() if there] == ["told_wrongly"]


def test_facts_told_at_once_and_unasked_are_measured():
    talk = make_talk("a party for 12", "Where?", "At the lake, in June.")

    measures = measure_user(talk, GOAL, FACTS)

    assert measures == {
        "message_words": 4.5,
        "goal_told_at_once": pytest.approx(2 / 5),
        "facts_told_at_once": pytest.approx(1 / 3),
        "facts_told_unasked": pytest.approx(1 / 3),
    }
    assert measure_user([], GOAL, FACTS) == {}


def test_rates_are_means_over_the_conversations_that_have_a_measure():
    rates = AuditRates()
    assert str(rates) == "Simulator audit: no conversations."

    rates.add({"repeat": True}, {"message_words": 4.0})
    rates.add({"repeat": False})

    assert rates.means() == {"repeat": 0.5, "message_words": 4.0}
    assert "repeat 50%, message_words 4.0" in str(rates)
