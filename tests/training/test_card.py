"""The model card says what was measured, and its code loads what was trained."""

import pytest

from collabllm.training.card import build_example, write_card
from collabllm.training.settings import SFTSettings
from tests.tokenizers_for_tests import make_tokenizer


@pytest.fixture
def write(tmp_path):
    """Write a card of a run that measured nothing, and return it."""

    def write_one(family="chatml", template_options={}, **changes):  # noqa: B006, read only
        settings = SFTSettings(hf_model_path="org/m", system_prompt="Ask first.", **changes)
        facts = {
            "method": "sft",
            "run_name": "r",
            "made_by": "on",
            "bundled": False,
            "settings": {},
            "data": {},
            "messages": build_example(settings.system_prompt, make_tokenizer(family)),
            "end_ids": [3, 5],
            "template_options": template_options,
        }
        write_card(tmp_path, settings, facts, {}, {}, None)
        return (tmp_path / "README.md").read_text()

    return write_one


def test_tasks_that_were_held_out_and_not_measured_are_not_denied(write):
    assert "Not measured." in write(eval_ratio=0.3)
    assert "No tasks were held out (eval_ratio 0)." in write(eval_ratio=0)


def test_the_code_gives_no_system_message_to_a_template_that_refuses_one(write):
    refused, taken = write("gemma2"), write("chatml")

    assert r"""{"role": "user", "content": 'Ask first.\n\nHelp me plan a party.'},""" in refused
    assert '"role": "system"' not in refused
    assert """{"role": "system", "content": 'Ask first.'},""" in taken


def test_the_code_loads_the_revision_that_was_trained(write):
    assert '"org/m", revision="v2", dtype="auto"' in write(model_revision="v2")
    assert "revision" not in write()


def test_the_code_stops_where_training_ended_replies_and_renders_as_it_did(write):
    card = write(template_options={"enable_thinking": False})

    assert "model.generate(**inputs, eos_token_id=[3, 5], max_new_tokens=200)" in card
    assert 'return_tensors="pt", return_dict=True,\n    enable_thinking=False\n)' in card
    assert "enable_thinking" not in write()
