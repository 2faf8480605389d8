"""Accuracy: times, dates, units and numbers, and replies that try to have it both ways."""

import asyncio

import pytest

from collabllm.rewards import MetricTools
from collabllm.rewards.registry import score_conversation
from collabllm.tasks import Task


def accuracy(expected, *replies):
    conversation = []
    for reply in replies:
        conversation.append({"role": "user", "content": "q"})
        conversation.append({"role": "assistant", "content": reply})
    task = Task("t", "goal", expected)
    scored = asyncio.run(score_conversation(conversation, task, ["accuracy"], MetricTools()))
    return scored["accuracy"].value


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("10:30 a.m.", "10:30 a.m.", 1.0),
        ("10:30 a.m.", "It starts at 10:30 a.m.", 1.0),
        ("10:30 a.m.", "It starts at 10:30 a.m. Enjoy!", 1.0),
        ("10:30 a.m.", "The answer is 10:30 AM.", 1.0),
        ("10:30 a.m.", "The answer is 10:30 a.m. It is early.", 1.0),
        ("10:30 a.m.", "It starts at 10:30 p.m.", 0.0),
        ("10:30 a.m.", "It starts at 10:30 a.m. It starts at 11:30 a.m.", 0.0),
        ("10:30 a.m. EST", "It starts at 10:30 a.m. EST.", 1.0),
        ("3:00 p.m.", "at 3:00 PM", 1.0),
        ("11:15", "\\boxed{11:15\\text{ am}}", 1.0),
        ("11:15 pm", "\\boxed{11:15\\text{ am}}", 0.0),
        ("11:15 am", "It is 11:15am.", 1.0),
    ],
)
def test_morning_and_afternoon_are_written_in_many_ways(expected, reply, value):
    assert accuracy(expected, reply) == value


@pytest.mark.parametrize(
    ("expected", "replies"),
    [
        (
            "3.5 hours",
            [
                "The trip is 1.5 hours. The trip is 2.5 hours. The trip is 3.5 hours. "
                "The trip is 4.5 hours."
            ],
        ),
        ("3.5 hours", ["The trip is 3.5 hours.", "The trip is 4.5 hours."]),
        ("3.5 hours", ["The trip is 2.5 hours 3.5 hours 4.5 hours."]),
        ("-40 degrees", ["The temperature is -40 degrees. The temperature is -50 degrees."]),
        ("-40 degrees", ["The temperature is -40 degrees / 50 degrees."]),
        ("-40 degrees", ["The temperature is -40 degrees 50 degrees."]),
        ("-40 degrees", ["The temperature is not -40 degrees."]),
        ("24.12.2024", ["The date is 24.12.2024. The date is 25.12.2024."]),
        ("24.12.2024", ["24.12.2024-25.12.2024"]),
        ("2024-12-24", ["2024-12-24 2024-12-25 2024-12-26"]),
        ("2024-12-24", ["2024-12-23 2024-12-24"]),
        ("2024-12-24", ["It is on 2024-12-24. It is on 2024-12-25."]),
        ("10:30", ["It starts at 10:30. It starts at 10:45."]),
        ("10:30", ["10:15, 10:30"]),
    ],
)
def test_guesses_that_contradict_the_answer_lose(expected, replies):
    assert accuracy(expected, *replies) == 0.0


@pytest.mark.parametrize(
    ("expected", "reply"),
    [
        ("-40 degrees", "The temperature is -40 degrees. Enjoy the snow!"),
        ("2024-12-24", "It is on 2024-12-24 at 10:30."),
        ("10:30", "It is on 24.12.2024 10:30."),
        ("10:30", "The train leaves at 10:30 and arrives at 11:45."),
        ("server 192.168.1.10", "It is the server 192.168.1.10."),
        ("5 apples", "3 apples + 2 apples = 5 apples."),
        ("20 dollars", "She spent 20 dollars (10 dollars per day)."),
        ("Python 3", "Python 2 -> Python 3"),
    ],
)
def test_numbers_of_another_kind_contradict_no_answer(expected, reply):
    assert accuracy(expected, reply) == 1.0


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("12", "The answer is 12.\nOr $15$.", 1.0),
        (r"\boxed{C}", "The answer is C.", 1.0),
        (r"\boxed{C}", "The answer is D.", 0.0),
        (r"\boxed{\text{even}}", "The answer is even.", 1.0),
        (r"\boxed{x}", "The answer is x.", 1.0),
        (r"\boxed{x}", "The answer is surely not x.", 0.0),
        ("15", "The answer is 12.\nOr $15$.", 0.0),
        ("12", "The answer is 12. Check: $3 \\cdot 5 = 15$", 1.0),
        ("15", "The answer is 12. Check: $3 \\cdot 5 = 15$", 0.0),
        ("12", "As $3 \\cdot 5 = 15$, the answer is 12.", 1.0),
        ("15", "As $3 \\cdot 5 = 15$, the answer is 12.", 0.0),
        ("12", "The answer is $12$ or $15$.", 0.0),
        ("15", "The answer is $12$ or $15$.", 0.0),
        ("18", "The answer is 18 dollars.", 1.0),
        ("18", "The answer is **$18$** dollars.", 1.0),
        ("1,200", "The answer is $1,200.", 1.0),
        ("\\frac{1}{2}", "The answer is $\\frac{1}{2}$.", 1.0),
        ("12", "The answer is:\n\\[\n12\n\\]", 1.0),
        ("12", "The answer is:\n$$\n12\n$$", 1.0),
        ("12", "The answer is as follows: we get $12$.", 1.0),
        ("12", "The answer is simple. Six and six is 12.", 1.0),
    ],
)
def test_one_number_counts_and_it_is_the_marked_one(expected, reply, value):
    assert accuracy(expected, reply) == value


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("05/12/2024", "5/12/2024", 1.0),
        ("05/12/2024", "The answer is 5.12.2024.", 1.0),
        ("05/12/2024", "15/12/2024", 0.0),
        ("2024-05-01", "It is on 2024-5-1.", 1.0),
        ("08:30", "It starts at 8:30 AM.", 1.0),
        ("10:30", "8:10:30", 0.0),
        ("10:30", "10:30:15", 0.0),
        ("10:30", "It took 8:10:30.", 0.0),
        ("8:10:30", "It took 8:10:30.", 1.0),
        ("10 dollars", "Price\n-10 dollars", 1.0),
        ("10 dollars", "Price\n-10 dollars\n-20 dollars", 0.0),
        ("-10 dollars", "Price\n-10 dollars", 1.0),
        ("10 dollars", "It is -10 dollars.", 0.0),
    ],
)
def test_zeros_of_dates_and_dashes_of_lists_change_no_number(expected, reply, value):
    assert accuracy(expected, reply) == value


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("三", "答案是\uff1a三。", 1.0),
        ("三", "答案是三。", 1.0),
        ("三", "答案为三。", 1.0),
        ("三", "答案: 三", 1.0),
        ("三", "答案是三十。", 0.0),
        ("三", "答案不是三。", 0.0),
        ("三", "答案是三还是四。", 0.0),
        ("三", "答案是三。答案是四。", 0.0),
        ("18", "答案是18。", 1.0),
        ("18", "答案是19。", 0.0),
    ],
)
def test_one_letter_and_numbers_are_found_in_chinese_sentences(expected, reply, value):
    assert accuracy(expected, reply) == value


@pytest.mark.parametrize("reply", ["The answer is not 18.", "The answer is **not** $18$."])
def test_an_answer_that_is_denied_is_none(reply):
    assert accuracy("18", reply) == 0.0


@pytest.mark.parametrize(
    "reply",
    [
        f"The answer is Paris {'!' * 100_000}",
        f"The answer is Paris{',' * 100_000} and",
        f"The answer is{chr(10) * 100_000}",
        "Paris is the capital of France and " * 3_000,
    ],
    ids=["marks", "commas", "lines", "words"],
)
def test_long_replies_take_no_longer_than_others(reply):
    """Where time grows by the square, this takes minutes."""
    assert accuracy("Paris", reply) == float("Paris" in reply)


@pytest.mark.parametrize(
    ("reply", "options", "right"),
    [
        ("The answer is A: B.", "ABC", ""),
        ("\\boxed{A: B}", "ABC", ""),
        ("The answer is A) B, C", "ABC", ""),
        ("The answer is (A) B", "ABC", ""),
        ("The answer is (A) B, because it is.", "ABC", ""),
        ("The answer is A, B, C", "ABC", ""),
        ("The answer is A: B or C", "ABC", ""),
        ("The answer is B, I think.", "ABC", "B"),
        ("The answer is A: A dog.", ("A", "a dog", "B"), ("A", "a dog")),
        ("The answer is A: Paris.", ("A", "Paris", "B"), ("A", "Paris")),
        ("The answer is (A) Paris, because of it.", ("A", "Paris", "B"), ("A", "Paris")),
        ("The answer is A, B.", ("A", "B", "A, B"), ("A, B",)),
        ("The answer is U.S.", ("U.S.", "u.s.", "U", "S"), ("U.S.", "u.s.")),
        ("\\boxed{J. R. R. Tolkien}", ("J. R. R. Tolkien", "R"), ("J. R. R. Tolkien",)),
    ],
)
def test_two_options_are_no_answer_and_an_options_text_is_one(reply, options, right):
    assert [option for option in options if accuracy(option, reply)] == list(right)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("The answer is 12 $=17$", ["12"]),
        ("The answer is 12 \\(=17\\)", ["12"]),
        ("The answer is 12 5", ["12"]),
        ("The answer is 12 (5)", ["12"]),
        ("The answer is 12 = 17", ["17"]),
        ("The answer is 5 + 7 = 12.", ["12"]),
        ("The answer is 3 \\cdot 4.", ["12"]),
        ("The answer is \\sqrt{144}.", ["12"]),
        ("The answer is 12 cm.", ["12"]),
        ("The answer is definitely not 12.", []),
        ("The answer is certainly, surely not $12$.", []),
        ("The answer is 12, not 17.", ["12"]),
        ("The answer is not 12 but 17.", []),
    ],
)
def test_a_marked_number_is_read_in_one_way(reply, right):
    assert [number for number in ("5", "12", "17") if accuracy(number, reply)] == right


@pytest.mark.parametrize(
    "answer",
    [
        "\\$12.",
        "**\\$12**",
        "(12)",
        '"12"',
        "[12]",
        "12 $cm$",
        "12 $\\text{cm}$",
        "20 \u2212 8",
        "without a doubt, 12.",
        "not surprisingly, 12.",
        "exactly, no rounding, 12.",
    ],
)
def test_a_marked_answer_with_one_number_may_be_written_in_any_way(answer):
    assert accuracy("12", f"The answer is {answer}") == 1
    assert accuracy("5", f"The answer is {answer}") == 0


@pytest.mark.parametrize(("answer", "number"), [("\u22125", "-5"), ("x = \u22120.5", "-0.5")])
def test_signs_of_other_alphabets_are_read(answer, number):
    assert accuracy(number, f"The answer is {answer}.") == 1
    assert accuracy("5", f"The answer is {answer}.") == 0
