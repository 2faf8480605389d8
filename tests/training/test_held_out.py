"""What a run shows of held-out conversations."""

from types import SimpleNamespace

import torch

from collabllm.training.held_out import answer_samples
from tests.tokenizers_for_tests import make_tokenizer


class Recorder:
    """A model that remembers what it is asked, and answers with nothing."""

    device, training = "cpu", False

    def eval(self):
        return self

    def train(self, mode):
        return self

    def generate(self, input_ids, **options):
        self.asked = input_ids
        return torch.cat([input_ids, input_ids[:, :0]], dim=1)


def test_samples_are_asked_by_the_prompt_that_was_trained():
    model, tokenizer = Recorder(), make_tokenizer("qwen3")
    trainer = SimpleNamespace(
        model=model,
        processing_class=tokenizer,
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        args=SimpleNamespace(chat_template_kwargs={"enable_thinking": False}),
    )

    answer_samples(trainer, [[{"role": "user", "content": "hi"}]])

    assert tokenizer.decode(model.asked[0]).endswith("<think>\n\n</think>\n\n")
