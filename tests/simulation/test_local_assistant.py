"""LocalAssistant: batched as alone, shared by threads, full contexts, fallback, adapters."""

import asyncio
import json
import threading
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from collabllm.data_processing import tokenize_conversation
from collabllm.errors import ContextFullError
from collabllm.event_loop import run
from collabllm.messages import fold_system, merge_consecutive
from collabllm.models import load_base_model
from collabllm.simulation import ChatSimulator, LocalAssistant, RuleBasedUser, TerminationReason
from collabllm.simulation.assistant.engines.cpu_attention import _attend
from collabllm.simulation.assistant.engines.prefix_store import PrefixStore
from collabllm.tasks import demo_tasks
from tests.tokenizers_for_tests import MISTRAL_3, PHI3_FIRST, make_tokenizer
from tests.training.conftest import save_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def assistant(tiny):
    with LocalAssistant(str(tiny), max_new_tokens=12, do_sample=False, dtype="float32") as local:
        yield local


def user(text):
    return [{"role": "user", "content": text}]


class FakeGpu:
    """A device that says it is no CPU."""

    type = "cuda"

    def __init__(self, name):
        self.name = name


@pytest.mark.parametrize("num_new", [1, 3])
@pytest.mark.parametrize("num_kv_heads", [2, 6])
def test_grouped_attention_is_attention_with_repeated_keys(num_new, num_kv_heads):
    torch.manual_seed(0)
    query = torch.randn(4, 6, num_new, 8)
    key, value = torch.randn(2, 4, num_kv_heads, 5, 8)
    mask = torch.rand(4, 1, num_new, 5) < 0.7
    mask[..., -1] = True

    (output, _) = _attend(torch.nn.Module(), query, key, value, mask)

    key, value = (each.repeat_interleave(6 // num_kv_heads, dim=1) for each in (key, value))
    scores = (query @ key.transpose(2, 3) / 8**0.5).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(output, (scores.softmax(-1) @ value).transpose(1, 2))


async def gather(assistant, prompts):
    return await asyncio.gather(*(assistant.agenerate(user(prompt)) for prompt in prompts))


@pytest.mark.parametrize("batching", ["continuous", "padded"])
def test_greedy_replies_are_the_same_alone_as_in_a_batch_and_as_generate(tiny, batching):
    prompts = [f"{'long ' * (i % 4)}question {i}" for i in range(9)]
    with LocalAssistant(
        str(tiny), max_new_tokens=12, do_sample=False, batching=batching, dtype="float32"
    ) as local:
        alone = [local.generate(user(prompt)) for prompt in prompts]
        together = [reply.text for reply in run(gather(local, prompts))]
        model = load_base_model(str(tiny), dtype=torch.float32)
        expected = []
        for prompt in prompts:
            ids = torch.tensor([local.tokenize(user(prompt))])
            output = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
            expected.append(local.tokenizer.decode(output, skip_special_tokens=True).strip())

    assert together == alone == expected


def test_a_seeded_reply_is_the_same_alone_as_in_any_batch(tiny):
    prompts = [f"{'long ' * (i % 4)}question {i}" for i in range(6)]

    async def sample(local, indices):
        calls = (local.agenerate(user(prompts[i]), seed=100 + i) for i in indices)
        return {i: r.text for i, r in zip(indices, await asyncio.gather(*calls), strict=True)}

    with LocalAssistant(str(tiny), max_new_tokens=12, temperature=1.0, dtype="float32") as local:
        together = run(sample(local, range(6)))
        in_pairs = {**run(sample(local, [5, 0])), **run(sample(local, [2, 4]))}
        alone = {**run(sample(local, [1])), **run(sample(local, [3]))}
        other_seed = run(local.agenerate(user(prompts[1]), seed=7)).text
        unseeded = {local.generate(user(prompts[1])) for _ in range(3)}

    assert {**in_pairs, **alone} == together
    assert other_seed != together[1]
    assert len(unseeded) == 3


@pytest.mark.parametrize("batching", ["continuous", "padded"])
def test_later_turns_read_the_same_history_from_the_cache(tiny, batching):
    """Conversations of unlike lengths go on together; a fresh assistant says the same."""

    async def go_on(local, talks):
        return await asyncio.gather(*(local.agenerate(talk) for talk in talks))

    talks = [user(f"{'long ' * (3 * i)}question {i}") for i in range(4)]
    with LocalAssistant(
        str(tiny), max_new_tokens=9, do_sample=False, batching=batching, dtype="float32"
    ) as local:
        for turn in range(3):
            replies = [reply.text for reply in run(go_on(local, talks))]
            with LocalAssistant(
                str(tiny), max_new_tokens=9, do_sample=False, dtype="float32"
            ) as fresh:
                assert replies == [fresh.generate(talk) for talk in talks]
            talks = [
                [*talk, {"role": "assistant", "content": reply}, *user(f"and {turn}?")]
                for talk, reply in zip(talks, replies, strict=True)
            ]
        if batching == "padded":
            full = sum(len(local.tokenize(talk)) for talk in talks)
            assert local._engine.prompt_tokens_encoded < full


def test_the_prefix_store_keeps_to_its_memory_and_drops_what_was_continued():
    def layers(length):
        return [(torch.zeros(1, length, 4), torch.zeros(1, length, 4))]

    store = PrefixStore(max_bytes=32 * 12)  # 12 tokens of 32 bytes
    store.add([1, 2, 3], layers(3))
    store.add([1, 2, 3, 4, 5], layers(5))
    assert store.num_bytes == 32 * 5
    store.add([7, 8, 9, 9], layers(4))
    assert store.find([1, 2, 3, 4, 6])[0][0].shape[1] == 4
    store.add([5] * 6, layers(6))

    assert store.find([7, 8, 9]) == []
    assert store.find([1, 2])[0][0].shape[1] == 1


def test_usage_counts_prompt_and_reply_tokens(assistant):
    reply = run(assistant.agenerate(user("hi")))

    assert reply.prompt_tokens == len(assistant.tokenize(user("hi")))
    assert reply.completion_tokens == 12
    assert reply.finish_reason == "length"


def test_two_users_of_one_assistant_in_threads(assistant):
    results = {}

    def talk(name):
        sharded = RuleBasedUser.from_task(demo_tasks()[0])
        results[name] = ChatSimulator(assistant, sharded).rollout([], 2).messages

    threads = [threading.Thread(target=talk, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results["a"] == results["b"]
    assert len(results["a"]) == 4


def test_a_full_context_ends_only_its_own_conversation(tiny):
    with LocalAssistant(str(tiny), max_new_tokens=8, do_sample=False, max_context=80) as local:

        async def both():
            long, short = user("x" * 200), user("hi")
            return await asyncio.gather(
                local.agenerate(long), local.agenerate(short), return_exceptions=True
            )

        failed, fine = run(both())
        prefix = [*user("hi"), {"role": "assistant", "content": "x" * 200}, *user("more")]
        result = ChatSimulator(local, RuleBasedUser((), "x")).rollout(prefix, 1)

    assert isinstance(failed, ContextFullError)
    assert fine.completion_tokens == 8
    assert result.termination_reason is TerminationReason.CONTEXT_FULL


def test_the_reply_is_cut_to_what_fits(tiny):
    with LocalAssistant(str(tiny), max_new_tokens=50, do_sample=False) as local:
        local.max_context = len(local.tokenize(user("hi"))) + 3

        assert run(local.agenerate(user("hi"))).completion_tokens == 3


def test_a_model_without_continuous_batching_falls_back_with_a_notice(tiny, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise NotImplementedError("no paged attention")

    monkeypatch.setattr("transformers.LlamaForCausalLM.init_continuous_batching", refuse)

    monkeypatch.setattr(
        "transformers.LlamaForCausalLM.device", property(lambda self: FakeGpu("cpu"))
    )

    with LocalAssistant(str(tiny), max_new_tokens=4, do_sample=False) as local:
        monkeypatch.setattr("transformers.LlamaForCausalLM.device", torch.device("cpu"))
        assert run(local.agenerate(user("hi"))).completion_tokens == 4

    assert "does not support continuous batching" in caplog.text
    with pytest.raises(RuntimeError, match="no paged attention"):
        LocalAssistant(str(tiny), batching="continuous")


def test_an_adapter_changes_the_replies_and_brings_its_chat_template(tiny, tmp_path, assistant):
    model = get_peft_model(
        load_base_model(str(tiny)),
        LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    settings = {"lora_path": str(tmp_path / "adapter"), "max_new_tokens": 12, "do_sample": False}

    with LocalAssistant(str(tiny), **settings) as adapted:
        assert adapted.generate(user("hi")) != assistant.generate(user("hi"))
    (tmp_path / "adapter/chat_template.jinja").write_text("{{ messages[0]['content'] }} of its own")
    with LocalAssistant(str(tiny), **settings) as adapted:
        assert adapted.tokenizer.decode(adapted.tokenize(user("hi"))) == "hi of its own"


def test_4bit_generates(tiny):
    with LocalAssistant(str(tiny), use_4bit=True, max_new_tokens=4, do_sample=False) as local:
        assert run(local.agenerate(user("hi"))).completion_tokens == 4


@pytest.mark.parametrize(("family", "template"), [("phi3", PHI3_FIRST), ("mistral", MISTRAL_3)])
def test_a_system_prompt_stands_where_it_stood_in_training(family, template):
    talk = [
        {"role": "system", "content": "be brief"},
        *user("hi"),
        {"role": "assistant", "content": "A"},
        *user("more"),
    ]
    assistant = LocalAssistant.__new__(LocalAssistant)
    assistant.tokenizer, assistant._template_options = make_tokenizer(family), {}
    assistant.tokenizer.chat_template = template

    row = tokenize_conversation([*talk, {"role": "assistant", "content": "B"}], assistant.tokenizer)

    prompt = assistant.tokenize(talk)
    assert row["input_ids"][: len(prompt)] == prompt
    assert "be brief\n\nhi" in assistant.tokenizer.decode(prompt)


def test_templates_that_refuse_a_system_prompt_get_it_in_the_first_message(tiny, assistant):
    talk = [{"role": "system", "content": "be brief"}, *user("hi"), *user("there")]
    gemma = LocalAssistant.__new__(LocalAssistant)
    gemma.tokenizer, gemma._template_options = make_tokenizer("gemma"), {}

    text = gemma.tokenizer.decode(gemma.tokenize(talk))

    assert "<start_of_turn>user\nbe brief\n\nhi\n\nthere<end_of_turn>" in text
    assert merge_consecutive(talk)[1]["content"] == "hi\n\nthere"
    assert fold_system(user("hi")) == user("hi")
    assert talk[0]["role"] == "system"


def test_a_tokenizer_without_a_template_is_refused(tiny):
    tokenizer = make_tokenizer("chatml")
    tokenizer.chat_template = None

    with pytest.raises(ValueError, match="has no chat template"):
        LocalAssistant(str(tiny), tokenizer=tokenizer)
    with pytest.raises(ValueError, match="batching must be auto"):
        LocalAssistant(str(tiny), batching="fast")
    with pytest.raises(ValueError, match="dtype must be auto.*'bf16'"):
        LocalAssistant(str(tiny), dtype="bf16")


def test_a_closed_assistant_says_so(tiny):
    local = LocalAssistant(str(tiny), max_new_tokens=4)
    local.close()

    with pytest.raises(RuntimeError, match="make a new LocalAssistant"):
        local.generate(user("hi"))


def test_thoughts_are_kept_from_the_reply_also_when_the_template_opens_them(tiny):
    class Says:
        async def generate(self, prompt_ids, max_new_tokens, *args):
            return list(local.tokenizer(self.text, add_special_tokens=False).input_ids), False

    with LocalAssistant(str(tiny), max_new_tokens=4, enable_thinking=True) as local:
        started, local._engine = local._engine, Says()
        plain = local.tokenizer.chat_template
        replies = []
        for opening in ("", "{% if enable_thinking %}<think>\n{% endif %}"):
            local.tokenizer.chat_template = plain + opening
            for text in ("<think>hm</think>4", "hm</think>4", "hm"):
                local._engine.text = text
                reply = run(local.agenerate(user("2+2")))
                replies.append((reply.reasoning, reply.text))
        local._engine = started

    assert replies == [("hm", "4"), ("hm", "4"), ("", "hm"), ("hm", "4"), ("hm", "4"), ("hm", "")]


def test_an_adapter_is_put_on_the_revision_that_it_was_trained_on(tmp_path, monkeypatch):
    config = {"base_model_name_or_path": "org/m", "revision": "v2"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    revisions = []

    def load(path, *, revision, **options):
        revisions.append(revision)
        if len(revisions) % 2 == 0:
            raise OSError("no weights here")
        return make_tokenizer("chatml")

    monkeypatch.setattr("collabllm.simulation.assistant.local.load_tokenizer", load)
    monkeypatch.setattr("collabllm.simulation.assistant.local.load_base_model", load)
    for base in ("org/m", "org/other"):
        with pytest.raises(OSError, match="no weights here"):
            LocalAssistant(base, lora_path=str(tmp_path))

    assert revisions == ["v2", "v2", "main", "main"]
