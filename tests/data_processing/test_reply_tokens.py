"""The tokens that templates of real families begin and end replies with."""

import pytest

from collabllm.data_processing.reply_tokens import find_end_token, find_opening_token
from tests.tokenizers_for_tests import make_tokenizer

UNENDED = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
REFUSES = "{{ raise_exception('never') }}"


@pytest.mark.parametrize(
    ("family", "end"),
    [
        ("chatml", "<|im_end|>"),
        ("chatml_base", "<|im_end|>"),
        ("llama3_1", "<|eot_id|>"),
        ("qwen3", "<|im_end|>"),
        ("gemma2", "<end_of_turn>"),
        ("phi3", "<|end|>"),
        ("gpt_oss", "<|return|>"),
        ("mistral", "</s>"),
    ],
)
def test_a_reply_ends_with_the_token_that_the_template_writes(family, end):
    tokenizer = make_tokenizer(family)

    assert find_end_token(tokenizer) == tokenizer.convert_tokens_to_ids(end)


@pytest.mark.parametrize("template", [UNENDED, REFUSES, None])
def test_a_template_that_ends_no_reply_has_no_end_token(template):
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = template

    assert find_end_token(tokenizer) is None


@pytest.mark.parametrize(
    ("family", "options", "opening"),
    [
        ("chatml", {}, None),
        ("mistral", {}, None),
        ("gpt_oss", {}, "<|channel|>"),
        ("qwen3", {}, "<think>"),
        ("qwen3", {"enable_thinking": False}, None),
    ],
)
def test_what_every_reply_begins_with_is_known(family, options, opening):
    assert find_opening_token(make_tokenizer(family), **options) == opening


def test_thoughts_that_the_prompt_opens_begin_every_reply():
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template += "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"

    assert find_opening_token(tokenizer) == "<think>"
