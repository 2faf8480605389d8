"""Answers that come in pieces: whole in the end, begun anew after a fault, left in the middle."""

import asyncio

import pytest

from collabllm.event_loop import run
from collabllm.servers.completion import UnreadableAnswerError
from collabllm.servers.streaming import read_stream
from collabllm.simulation import OpenAIAssistant, OpenAIClient
from tests.fake_server import FakeServer

TEXT = "Which budget? And when?"


def user(text):
    return [{"role": "user", "content": text}]


def watch(server, answer=TEXT, **client):
    """Let an assistant answer; gives the reply, and the texts that were shown before it."""
    server.answer = lambda body: answer
    shown = []
    assistant = OpenAIAssistant("m", client=OpenAIClient(server.url, "none", **client))
    reply = run(assistant.astream(user("hello"), shown.append))
    return reply, [(part.text, part.reasoning) for part in shown], assistant.client


@pytest.fixture
def server():
    with FakeServer(lambda body: TEXT) as fake:
        yield fake


def test_an_answer_comes_word_by_word_and_is_counted_as_a_whole_one(server):
    reply, shown, client = watch(server)

    assert [text.strip() for text, _ in shown] == [
        "Which",
        "Which budget?",
        "Which budget? And",
        "Which budget? And when?",
    ]
    assert (reply.text, reply.finish_reason) == (TEXT, "stop")
    assert reply.completion_tokens == server.delivered["m", "completion_tokens"] > 0
    assert client.ledger.by_role()["assistant"].requests == 1


def test_thoughts_are_told_from_what_is_said_also_in_the_middle(server):
    reply, shown, _ = watch(server, "<think>They are vague.</think>Which budget?")

    assert shown[0] == ("", "They")
    assert all("They" not in text for text, _ in shown)
    assert (reply.text, reply.reasoning) == ("Which budget?", "They are vague.")


def test_an_answer_that_breaks_off_is_asked_for_again_and_begins_anew(server):
    server.breaks = 1
    reply, shown, _ = watch(server)

    assert [text.strip() for text, _ in shown[:3]] == ["Which", "Which", "Which budget?"]
    assert reply.text == TEXT
    assert len(server.requests) == 2


def test_a_server_that_refuses_an_option_or_does_not_stream_answers_all_the_same(server):
    refusal = {"error": {"message": "Unrecognized field: stream_options", "param": None}}
    server.reject = lambda body: (400, refusal) if "stream_options" in body else None
    reply, shown, client = watch(server)
    server.reject, server.streams = None, False
    again, nothing, _ = watch(server)

    assert (reply.text, again.text, len(shown), nothing) == (TEXT, TEXT, 4, [])
    assert client.refused == {"m": {"stream_options"}}


def test_who_leaves_in_the_middle_closes_the_connection(server):
    server.answer = lambda body: "word " * 2000
    server.piece_s = 0.01

    async def leave(assistant):
        begun = asyncio.Event()
        task = asyncio.create_task(assistant.astream(user("hi"), lambda reply: begun.set()))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])

    run(leave(OpenAIAssistant("m", client=OpenAIClient(server.url, "none"))))
    while not server.injected["reader gone"]:
        pass


def test_pieces_that_are_none_are_an_unreadable_answer():
    async def read(*lines):
        async def come():
            for line in lines:
                yield line

        return await read_stream(come(), {}, lambda completion: None)

    word = 'data: {"choices": [{"delta": {"content": "hi"}}]}'
    assert run(read(": a comment", word, "data: [DONE]")).text == "hi"
    for lines in (
        (word,),
        (),
        ("data: {",),
        ("data: []",),
        ('data: {"choices": [1]}',),
        (word, 'data: {"error": {"message": "out of memory"}}', "data: [DONE]"),
    ):
        with pytest.raises(UnreadableAnswerError):
            run(read(*lines))
