"""`no_repeat_ngram_size`: what the assistant wrote in a conversation, it does not write again."""

import asyncio
import random

import pytest
import torch

from collabllm.evaluation.settings import EvaluationSettings
from collabllm.event_loop import run
from collabllm.hub import BUNDLED_MODEL
from collabllm.simulation import LocalAssistant
from collabllm.simulation.assistant.engines.no_repeat import NoRepeat
from collabllm.simulation.assistant.registry import local_options, server_options
from tests.training.conftest import save_tiny_model

SIZE = 3
OPENING = "Count from 1 to 5, three times."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def local():
    """The bundled model: what a random one writes is not the same ids again when tokenized."""
    options = {"dtype": "float32", "no_repeat_ngram_size": SIZE}
    with LocalAssistant(BUNDLED_MODEL, max_new_tokens=16, do_sample=False, **options) as assistant:
        yield assistant


def runs(replies, size=SIZE):
    return [tuple(ids[i : i + size]) for ids in replies for i in range(len(ids) - size + 1)]


def conversation(local, opening, turns=3):
    messages, replies = [{"role": "user", "content": opening}], []
    for _ in range(turns):
        reply = run(local.agenerate(messages)).text
        replies.append(reply)
        messages += [
            {"role": "assistant", "content": reply},
            {"role": "user", "content": "go on"},
        ]
    return messages, replies


@pytest.mark.parametrize("size", [1, 2, 4])
def test_it_bans_what_a_plain_search_finds(size):
    chance = random.Random(size)
    for _ in range(200):
        earlier = [
            [[chance.randrange(3) for _ in range(chance.randrange(9))] for _ in range(2)]
            for _ in range(2)
        ]
        processor = NoRepeat(earlier, size, width=2)
        written = [[], []]
        for _ in range(7):
            ids = torch.tensor([[0, 0, *row] for row in written])
            scores = processor(ids, torch.zeros(2, 9))
            for row, own, before in zip(scores, written, earlier, strict=True):
                known = runs([*before, own], size)
                repeating = {token for token in range(9) if (*own, token)[-size:] in known}
                expected = repeating if len(own) >= size - 1 else set()
                assert set(torch.nonzero(row == -torch.inf).flatten().tolist()) == expected
            for own in written:
                own.append(chance.randrange(3))


@pytest.fixture(scope="module")
def talk(local):
    return conversation(local, OPENING)


def test_no_run_is_written_twice_in_a_conversation(local, talk):
    _, replies = talk
    found = runs([local.tokenizer(text, add_special_tokens=False).input_ids for text in replies])
    assert len(set(found)) == len(found) > 20

    plain = LocalAssistant(
        BUNDLED_MODEL,
        max_new_tokens=16,
        do_sample=False,
        model=local.model,
        tokenizer=local.tokenizer,
    )
    _, replies = conversation(plain, OPENING, turns=2)
    found = runs([local.tokenizer(text, add_special_tokens=False).input_ids for text in replies])
    assert len(set(found)) < len(found)


def test_a_reply_is_the_same_alone_as_in_a_batch(local, talk):
    messages, replies = talk
    prompts = [messages[:1], [{"role": "user", "content": "x " * 30}], messages[:3], messages[:5]]

    async def together():
        return await asyncio.gather(*(local.agenerate(prompt) for prompt in prompts))

    batch = [reply.text for reply in run(together())]
    assert [batch[0], *batch[2:]] == replies


def test_sampled_replies_and_streams_keep_to_it(tiny):
    said = [{"role": "user", "content": "hello"}]
    with LocalAssistant(
        tiny, max_new_tokens=24, temperature=0.01, dtype="float32", no_repeat_ngram_size=1
    ) as local:
        shown = []
        streamed = run(local.astream(said, shown.append, seed=1))
        reply, ids = run(local.answer(local.tokenize(said), 1))
    assert streamed.text == reply.text
    assert len(shown) > 1
    assert len(set(ids)) == len(ids) > 1


def test_the_flag_reaches_a_local_assistant_and_is_refused_for_a_server(tiny):
    settings = EvaluationSettings(hf_model_path=tiny, no_repeat_ngram_size=4)
    assert local_options(settings)["no_repeat_ngram_size"] == 4
    with pytest.raises(ValueError, match="--no_repeat_ngram_size is for a local assistant"):
        server_options(settings)
    with pytest.raises(ValueError, match="needs padded batches"):
        LocalAssistant(tiny, batching="continuous", no_repeat_ngram_size=4)
