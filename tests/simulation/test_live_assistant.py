"""The policy in training as an assistant: today's weights, and a model that is as it was."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from collabllm.event_loop import run
from collabllm.models import load_tokenizer
from collabllm.simulation.assistant.live import LiveAssistant
from collabllm.simulation.assistant.local import LocalAssistant
from tests.training.conftest import save_tiny_model

TALK = [{"role": "user", "content": "help with a party"}]


@pytest.fixture
def model_path(tmp_path):
    return str(save_tiny_model(tmp_path / "tiny"))


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def answer(assistant):
    return run(assistant.agenerate(TALK, seed=1)).text


def change(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.sin(torch.arange(parameter.numel())).view_as(parameter))


def test_each_loan_answers_with_the_weights_of_its_moment(model_path):
    model, tokenizer = load(model_path), load_tokenizer(model_path)
    live = LiveAssistant(model, tokenizer, max_new_tokens=8, do_sample=False)
    with live.borrow():
        first = answer(live)
        again = answer(live)
        encoded = live._engine.prompt_tokens_encoded
    change(model)
    with live.borrow():
        later = answer(live)
        encoded_later = live._engine.prompt_tokens_encoded - encoded
    live.close()

    with LocalAssistant(
        "", model=model, tokenizer=tokenizer, max_new_tokens=8, do_sample=False, batching="padded"
    ) as fresh:
        expected = answer(fresh)
    prompt_tokens = len(fresh.tokenize(TALK))
    assert first == again != later
    assert later == expected
    assert encoded == prompt_tokens + 1  # the second answer needed the prompt's last token only
    assert encoded_later == prompt_tokens  # nothing of the old weights was used again


def test_the_model_is_as_it_was_after_a_loan_even_a_failed_one(model_path):
    model, tokenizer = load(model_path), load_tokenizer(model_path)
    model.train()
    model.model.layers[0].eval()  # a part that was frozen on purpose
    model.generation_config.repetition_penalty = 1.3
    attention, config = model.config._attn_implementation, model.generation_config
    live = LiveAssistant(model, tokenizer, max_new_tokens=4)

    def fail():
        with live.borrow():
            assert not model.training
            assert model.generation_config.repetition_penalty is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert model.training
    assert not model.model.layers[0].training
    assert model.config._attn_implementation == attention
    assert model.generation_config is config
    assert config.repetition_penalty == 1.3
    live.close()
