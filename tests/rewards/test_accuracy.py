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
