"""tokenize_conversation: the loss covers replies and end tokens, for every template family."""

from importlib.resources import files

import pytest
from tokenizers import normalizers

from collabllm.data_processing import IGNORE_INDEX, tokenize_conversation
from collabllm.data_processing.tokenization import HistoryChangesError
from tests.tokenizers_for_tests import (
    CHATML,
    FAMILIES,
    MISTRAL_3,
    PHI3_FIRST,
    make_tokenizer,
)

SYSTEM = {"role": "system", "content": "be brief"}


def conversation(num_turns, weight=1):
    messages = []
    for turn in range(num_turns):
        messages.append({"role": "user", "content": f"question {turn}?"})
        messages.append({"role": "assistant", "content": f"réply 🎈 {turn}", "weight": weight})
    return messages


def trained_texts(row, tokenizer):
    """Decode each stretch of labels."""
    texts, run = [], []
    for label in [*row["labels"], IGNORE_INDEX]:
        if label != IGNORE_INDEX:
            run.append(label)
        elif run:
            texts.append(tokenizer.decode(run))
            run = []
    return texts


HISTORY_CHANGES = ("qwen3", "gpt_oss")  # the last reply is rendered unlike earlier ones
BEFORE = {
    "qwen3": "<think>\n\n</think>\n\n",
    "mistral": " ",
    "gpt_oss": "<|channel|>final<|message|>",
}
END = {
    "phi3": "<|end|>",  # the end-of-text token after it never follows at inference
    "chatml_base": "<|im_end|>",  # whatever the tokenizer's eos_token is
}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in HISTORY_CHANGES])
def test_every_reply_of_20_turns_is_trained_with_its_end_token(family):
    tokenizer = make_tokenizer(family)
    end = END.get(family, FAMILIES[family][2])

    row = tokenize_conversation(conversation(20), tokenizer, max_length=None)

    expected = [f"{BEFORE.get(family, '')}réply 🎈 {turn}{end}" for turn in range(20)]
    assert trained_texts(row, tokenizer) == expected
    assert len(row["input_ids"]) == len(row["labels"])
    assert (row["num_replies"], row["num_lost_replies"]) == (20, 0)


@pytest.mark.parametrize("family", HISTORY_CHANGES)
def test_a_reply_that_looks_different_in_the_history_takes_a_row_a_turn(family):
    tokenizer = make_tokenizer(family)
    last_only = conversation(3, weight=0)
    last_only[-1]["weight"] = 1

    with pytest.raises(HistoryChangesError, match="--turns every"):
        tokenize_conversation(conversation(3), tokenizer)
    row = tokenize_conversation(last_only, tokenizer)

    end = FAMILIES[family][2]
    assert trained_texts(row, tokenizer) == [f"{BEFORE[family]}réply 🎈 2{end}"]
    prompt = tokenizer.apply_chat_template(
        last_only[:-1], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(row["input_ids"]).startswith(prompt)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family[1]])
def test_there_is_exactly_one_bos(family):
    tokenizer = make_tokenizer(family)

    row = tokenize_conversation(conversation(3), tokenizer)

    assert row["input_ids"].count(tokenizer.bos_token_id) == 1
    assert row["input_ids"][0] == tokenizer.bos_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_what_precedes_a_reply_is_what_generation_sees(family):
    tokenizer = make_tokenizer(family)
    messages = conversation(1)

    row = tokenize_conversation(messages, tokenizer)

    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "question 0?"}], add_generation_prompt=True, return_dict=False
    )
    first_label = next(i for i, label in enumerate(row["labels"]) if label != IGNORE_INDEX)
    assert row["input_ids"][:first_label] == prompt


def test_replies_of_weight_0_and_what_follows_the_last_trained_reply_have_no_loss():
    tokenizer = make_tokenizer("chatml")
    messages = conversation(3)
    messages[1]["weight"] = messages[5]["weight"] = 0

    row = tokenize_conversation([SYSTEM, *messages], tokenizer)

    assert trained_texts(row, tokenizer) == ["réply 🎈 1<|im_end|>"]
    assert tokenizer.decode(row["input_ids"]).endswith("réply 🎈 1<|im_end|>")


def test_a_conversation_without_trained_replies_is_empty():
    row = tokenize_conversation(conversation(2, weight=0), make_tokenizer("chatml"))

    assert row == {
        "input_ids": [],
        "labels": [],
        "num_replies": 0,
        "num_lost_replies": 0,
    }


def test_too_long_loses_whole_late_turns_and_counts_them():
    tokenizer = make_tokenizer("llama3_1")
    full = tokenize_conversation(conversation(5), tokenizer)
    two_turns = tokenize_conversation(conversation(2), tokenizer)

    exact = tokenize_conversation(conversation(5), tokenizer, len(two_turns["input_ids"]))
    under = tokenize_conversation(conversation(5), tokenizer, len(two_turns["input_ids"]) - 1)
    nothing = tokenize_conversation(conversation(5), tokenizer, 10)

    assert exact["input_ids"] == two_turns["input_ids"] == full["input_ids"][: len(exact["labels"])]
    assert exact["num_lost_replies"] == 3
    assert len(trained_texts(under, tokenizer)) == 1
    assert (nothing["input_ids"], nothing["num_replies"], nothing["num_lost_replies"]) == ([], 5, 5)


def test_a_reply_that_begins_with_a_line_break_does_not_train_the_prompt():
    tokenizer = make_tokenizer("chatml")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\nx"}]

    row = tokenize_conversation(messages, tokenizer)

    # "\n" of the prompt and "\n" of the reply are one token, which generation cannot produce
    assert trained_texts(row, tokenizer) == ["x<|im_end|>"]


def test_a_template_that_changes_earlier_text_is_refused_with_a_remedy():
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template

    with pytest.raises(ValueError, match='not\n? ?prefix-preserving.*turns="every"'):
        tokenize_conversation(conversation(2), tokenizer)


@pytest.mark.parametrize(
    ("family", "template"),
    [("gemma2", None), ("mistral", None), ("phi3", PHI3_FIRST), ("mistral", MISTRAL_3)],
)
def test_a_system_prompt_that_is_not_shown_first_moves_to_the_first_user_message(family, template):
    tokenizer = make_tokenizer(family)
    tokenizer.chat_template = template or tokenizer.chat_template

    row = tokenize_conversation([SYSTEM, *conversation(2)], tokenizer)

    assert "be brief\n\nquestion 0?" in tokenizer.decode(row["input_ids"])
    assert len(trained_texts(row, tokenizer)) == 2


def test_text_that_a_normalizer_rewrites_is_labelled_by_its_place():
    tokenizer = make_tokenizer("chatml")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    messages = [
        {"role": "user", "content": "<think>"},
        {"role": "assistant", "content": "cafe\u0301 <think>ok"},
    ]

    row = tokenize_conversation(messages, tokenizer)

    assert trained_texts(row, tokenizer) == ["caf\u00e9 <think>ok<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("deepseek_r1_distill", r"ends the prompt with '.*<think>\\n' when a reply"),
        ("smolvlm", "leaves out a reply that ends with 'hello'"),
    ],
)
def test_a_template_that_begins_replies_otherwise_or_drops_them_is_refused(template, says):
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = files("trl").joinpath(f"chat_templates/{template}.jinja").read_text()

    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]

    with pytest.raises(ValueError, match=says) as raised:
        tokenize_conversation(messages, tokenizer)
    assert not isinstance(raised.value, HistoryChangesError)


def test_a_tokenizer_without_a_template_says_so():
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = None

    with pytest.raises(ValueError, match="has no chat template"):
        tokenize_conversation(conversation(1), tokenizer)


def test_a_template_with_the_end_token_of_another_family_is_refused():
    tokenizer = make_tokenizer("phi3")
    tokenizer.chat_template = CHATML

    with pytest.raises(ValueError, match=r"reply with '.*<\|im_end\|>', and the tokenizer has no"):
        tokenize_conversation(conversation(1), tokenizer)


def test_a_template_without_an_end_token_is_refused():
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    )

    with pytest.raises(ValueError, match="never learn to stop"):
        tokenize_conversation(conversation(1), tokenizer)
