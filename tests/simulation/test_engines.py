"""Engines of the local assistant: failures reach their caller alone, and settings count alike."""

import asyncio
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from collabllm.event_loop import run
from collabllm.models import load_base_model, load_tokenizer
from collabllm.simulation import LocalAssistant
from collabllm.simulation.assistant import AssistantReply
from collabllm.simulation.assistant.engines import continuous
from collabllm.simulation.assistant.engines.base import keep_special_ids_only
from collabllm.simulation.assistant.engines.continuous import ContinuousEngine
from tests.training.conftest import save_tiny_model

BOTH = pytest.mark.parametrize("batching", ["continuous", "padded"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def padded(tiny):
    local = LocalAssistant(tiny, max_new_tokens=4, do_sample=False, batching="padded")
    yield local
    local.close()


def user(text):
    return [{"role": "user", "content": text}]


async def gather(local, prompts):
    calls = (local.agenerate(user(prompt)) for prompt in prompts)
    return await asyncio.gather(*calls, return_exceptions=True)


def test_whatever_fails_in_a_batch_meets_only_its_own_caller(padded, monkeypatch):
    poison = padded.tokenize(user("poison"))
    real = padded.model.generate

    def generate(input_ids, **kwargs):
        if any(poison == row[-len(poison) :] for row in input_ids.tolist()):
            raise KeyError("some kernel")
        return real(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(padded.model, "generate", generate)
    outcomes = run(gather(padded, ["a", "b", "poison", "c", "d"]))
    again = run(padded.agenerate(user("a")))

    assert isinstance(outcomes.pop(2), RuntimeError)
    assert [reply.completion_tokens for reply in outcomes] == [4, 4, 4, 4]
    assert again.completion_tokens == 4


@BOTH
def test_a_reply_is_shown_token_by_token_to_its_own_caller(tiny, batching):
    async def watch(local, prompt):
        shown = []
        reply = await local.astream(user(prompt), shown.append)
        return reply, shown

    async def both(local):
        return await asyncio.gather(*(watch(local, prompt) for prompt in ("a", "another one")))

    with LocalAssistant(tiny, max_new_tokens=6, do_sample=False, batching=batching) as local:
        alone = [run(local.agenerate(user(prompt))).text for prompt in ("a", "another one")]
        streamed = run(both(local))

    assert [reply.text for reply, _ in streamed] == alone
    for reply, shown in streamed:
        counts = [part.completion_tokens for part in shown]
        assert counts[:5] == [1, 2, 3, 4, 5]
        assert all(reply.text.startswith(part.text.strip()) for part in shown)
        assert {part.finish_reason for part in shown} == {""}


def test_a_cancelled_reply_is_not_written_to_its_end(tiny):
    async def leave_after(local, num_tokens):
        enough = asyncio.Event()
        call = local.astream(
            user("a"), lambda r: r.completion_tokens >= num_tokens and enough.set()
        )
        task = asyncio.create_task(call)
        await enough.wait()
        task.cancel()
        await asyncio.wait([task])

    steps = []
    with LocalAssistant(tiny, max_new_tokens=300, do_sample=False, batching="padded") as local:
        whole = run(local.agenerate(user("a"))).completion_tokens
        local.model.register_forward_hook(lambda *_: steps.append(1))
        run(leave_after(local, 3))
        after = run(local.agenerate(user("b"))).completion_tokens

    assert after <= len(steps) < whole + after


def test_a_call_chooses_its_temperature_among_others_in_padded_batches(tiny):
    options = {"max_new_tokens": 6, "batching": "padded", "dtype": "float32"}
    temperatures = (0, 0.1, 1.0)  # this model is nearly indifferent between tokens

    async def talk(local, *chosen):
        calls = (local.agenerate(user("a"), seed=7, temperature=t) for t in chosen)
        return [reply.text for reply in await asyncio.gather(*calls)]

    expected = []
    for temperature in temperatures:
        sampling = {"temperature": temperature} if temperature else {"do_sample": False}
        with LocalAssistant(tiny, **sampling, **options) as local:
            expected += run(talk(local, None))
            together = run(talk(local, *temperatures))
    assert together == expected
    assert len(set(expected)) == 3


def test_with_continuous_batching_a_call_chooses_its_temperature_where_that_was_asked_for(tiny):
    options = {"max_new_tokens": 12, "batching": "continuous", "dtype": "float32"}
    with LocalAssistant(tiny, temperature=1.0, own_temperatures=True, **options) as local:
        cold = {run(local.agenerate(user("a"), temperature=1e-4)).text for _ in range(3)}
        warm = {run(local.agenerate(user("a"))).text for _ in range(3)}
    with LocalAssistant(tiny, do_sample=False, **options) as local:
        assert cold == {run(local.agenerate(user("a"))).text}
        with pytest.raises(ValueError, match="own_temperatures"):
            run(local.agenerate(user("a"), temperature=0.5))
    assert len(warm) == 3


@BOTH
def test_after_a_warm_up_replies_are_the_same(tiny, batching):
    with LocalAssistant(tiny, max_new_tokens=6, do_sample=False, batching=batching) as local:
        before = local.generate(user("a"))
        local.warmup()

        assert local.generate(user("a")) == before


@pytest.mark.parametrize("has_flash", [True, False])
def test_slow_attention_on_a_gpu_is_told_in_one_line(tiny, monkeypatch, caplog, has_flash):
    """A GPU in name only: what the engine asks of transformers is looked at."""
    asked = []

    def start(generation_config, continuous_batching_config):
        asked.append(continuous_batching_config)
        raise NotImplementedError

    own = GenerationConfig(eos_token_id=1)
    gpu = SimpleNamespace(type="cuda")
    model = SimpleNamespace(device=gpu, generation_config=own, init_continuous_batching=start)
    monkeypatch.setattr(continuous, "_has_flash_attention", lambda: has_flash)
    with pytest.raises(RuntimeError, match="NotImplementedError"):
        ContinuousEngine(model, load_tokenizer(tiny), {"do_sample": False}, 512, 8, 0.4)

    assert (asked[0].page_size, asked[0].max_memory_percent) == (256 if has_flash else 32, 0.4)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == (not has_flash)
    assert all("--assistant vllm" in text and "\n" not in text for text in warnings)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_callers_are_told_when_the_worker_dies_and_when_it_is_closed(tiny, monkeypatch):
    def die(**kwargs):
        raise SystemExit

    for close in (False, True):
        local = LocalAssistant(tiny, max_new_tokens=4, batching="padded")
        under_way = threading.Event()
        release = threading.Event()

        def block(under_way=under_way, release=release, **kwargs):
            under_way.set()
            release.wait(10)
            raise SystemExit

        monkeypatch.setattr(local.model, "generate", block if close else die)
        results = []
        caller = threading.Thread(target=lambda: results.append(run(gather(local, "abc"))))  # noqa: B023
        caller.start()
        if close:
            under_way.wait(10)
            threading.Timer(0.2, release.set).start()
            local.close()
        caller.join(10)

        assert [str(error) for error in results[0]] == [
            "The local engine has stopped; make a new LocalAssistant."
        ] * 3


def test_a_continuous_engine_whose_thread_died_fails_its_callers(tiny, monkeypatch):
    with LocalAssistant(tiny, max_new_tokens=40, batching="continuous") as local:

        def die(*args):
            raise MemoryError("no room")

        monkeypatch.setattr(local._engine._manager, "_generation_step", die)
        failed = run(gather(local, ["a", "b"]))
        # A thread that ends without a word, as after os.fork or an abort.
        monkeypatch.setattr(local._engine._manager, "add_request", lambda *a, **k: "id")
        started = time.monotonic()
        silent = run(gather(local, ["c"]))

    assert [type(error) for error in [*failed, *silent]] == [RuntimeError] * 3
    assert "no room" in str(failed[0])
    assert "no room" in str(silent[0])
    assert time.monotonic() - started < 10


def test_two_event_loops_share_one_continuous_engine(tiny):
    results = []
    with LocalAssistant(tiny, max_new_tokens=12, do_sample=False, batching="continuous") as local:

        def talk(name):
            for turn in range(4):
                prompts = [f"{name} {turn} {i}" for i in range(4)]
                results.extend(asyncio.run(gather(local, prompts)))

        threads = [threading.Thread(target=talk, args=(name,), daemon=True) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert [type(reply) for reply in results] == [AssistantReply] * 32


@BOTH
def test_a_models_own_sampling_settings_count_in_no_engine(tiny, batching):
    model, tokenizer = load_base_model(tiny, dtype=torch.float32), load_tokenizer(tiny)
    ids = tokenizer.apply_chat_template(user("hi"), add_generation_prompt=True, return_dict=False)
    plain = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    model.generation_config.suppress_tokens = plain[0, len(ids) :].tolist()
    penalised = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)

    with LocalAssistant(
        tiny,
        max_new_tokens=8,
        do_sample=False,
        batching=batching,
        model=model,
        tokenizer=tokenizer,
    ) as local:
        reply = local.generate(user("hi"))

    def text(output):
        return tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).strip()

    assert text(plain) != text(penalised)
    assert reply == text(plain)
    assert model.generation_config.suppress_tokens is not None


@BOTH
def test_one_set_of_settings_is_one_distribution(tiny, batching):
    """First tokens of 400 samples against the probabilities by hand."""
    settings = {"temperature": 0.8, "top_k": 4, "top_p": 0.9}
    with LocalAssistant(
        tiny, max_new_tokens=1, batching=batching, dtype="float32", **settings
    ) as local:
        ids = local.tokenize(user("hi"))
        with torch.no_grad():
            logits = local.model(torch.tensor([ids])).logits[0, -1] / 0.8
        top = logits.topk(4)
        probabilities = top.values.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        kept = torch.where(before < 0.9, probabilities, 0.0)
        expected = dict(zip(top.indices.tolist(), (kept / kept.sum()).tolist(), strict=True))

        async def sample():
            calls = (local._engine.generate(ids, 1, seed) for seed in range(400))
            return await asyncio.gather(*calls)

        counts = Counter(new[0] for new, _ in run(sample()))

    assert set(counts) <= {token for token, share in expected.items() if share}
    for token, share in expected.items():
        assert counts[token] / 400 == pytest.approx(share, abs=0.1)  # 4 standard errors


@BOTH
def test_a_reply_that_ends_by_itself_is_told_from_one_that_is_cut(tiny, batching):
    model, tokenizer = load_base_model(tiny, dtype=torch.float32), load_tokenizer(tiny)
    prompt = torch.tensor(
        [tokenizer.apply_chat_template(user("hi"), add_generation_prompt=True, return_dict=False)]
    )
    new = model.generate(prompt, max_new_tokens=6, do_sample=False)[0, prompt.shape[1] :].tolist()
    last = new[3]
    model.generation_config.eos_token_id = [last]
    reasons = {}
    for limit in (1, new.index(last) + 1, 20):
        with LocalAssistant(
            tiny,
            max_new_tokens=limit,
            do_sample=False,
            batching=batching,
            model=model,
            tokenizer=tokenizer,
        ) as local:
            reply = run(local.agenerate(user("hi")))
            reasons[limit] = (reply.finish_reason, reply.completion_tokens)

    length = new.index(last) + 1
    assert reasons[1] == (("stop", 1) if length == 1 else ("length", 1))
    assert reasons[length] == reasons[20] == ("stop", length)


def test_the_models_config_keeps_its_ids_and_says_what_is_dropped(tiny, caplog):
    model = load_base_model(tiny)
    model.generation_config.repetition_penalty = 1.1
    own = model.generation_config
    with caplog.at_level("INFO", logger="collabllm"):
        returned = keep_special_ids_only(model)

    assert returned is own
    assert model.generation_config.eos_token_id == own.eos_token_id
    assert model.generation_config.repetition_penalty is None
    assert "{'repetition_penalty': 1.1}" in caplog.text


@BOTH
def test_a_reply_stops_at_the_templates_end_token_also_where_eos_is_another(tmp_path, batching):
    folder = save_tiny_model(tmp_path / "base", "chatml_base")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = load_tokenizer(str(folder))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.2)  # a direction that all hidden states share
        model.lm_head.weight[end] = 1.0

    with LocalAssistant(
        "it", model=model, tokenizer=tokenizer, max_new_tokens=4, batching=batching, do_sample=False
    ) as local:
        reply = run(local.agenerate(user("hi")))

    assert tokenizer.eos_token_id != end
    assert (reply.finish_reason, reply.completion_tokens) == ("stop", 1)
