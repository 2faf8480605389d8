"""Credit by whole conversations: exact token ids, masks, floors, and the gradient by hand."""

import asyncio
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from collabllm.rewards.registry import MetricTools
from collabllm.simulation import UserModel
from collabllm.simulation.assistant.local import LocalAssistant
from collabllm.simulation.user_models import UserTurnResult
from collabllm.training.grpo_conversations import Conversations, _Talk
from collabllm.training.grpo_online import describe
from scripts.train_grpo import parse_args
from tests.tokenizers_for_tests import make_tokenizer

FLOOR = -1.0  # of one metric from 0 to 1 with weight -1
ROW = {"single_turn_prompt": "a poem about rain"}


class ScriptedPolicy(LocalAssistant):
    """Writes token ids from a queue, and keeps the ids and seeds that it was asked with."""

    def __init__(self, *replies, family="chatml", max_context=1000):
        self.tokenizer = make_tokenizer(family)
        self.max_context, self.max_new_tokens = max_context, 100
        self._template_options = {}
        self._engine = self
        self.replies, self.asked, self.seeds = list(replies), [], []

    async def generate(self, prompt_ids, max_new_tokens, seed=None, *args):
        self.asked.append(prompt_ids)
        self.seeds.append(seed)
        if not self.replies:
            await asyncio.sleep(60)
        pieces = self.replies.pop(0)
        ids = [idx for piece in pieces for idx in self.encode(piece)][:max_new_tokens]
        return ids, ids[-1] == self.tokenizer.eos_token_id

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def read(self, ids):
        return self.tokenizer.decode(ids)

    def borrow(self):
        return nullcontext()


class Asker(UserModel):
    """Says one thing for ever."""

    async def agenerate(self, messages, *, seed=None):
        return UserTurnResult("more", False)


def converse(policy, num=1, **settings):
    flags = [f"--{name}={value}" for name, value in settings.items()]
    settings, _ = parse_args([*flags, '--weights={"facts_used": 1, "repetition": -1}'])
    online = SimpleNamespace(
        policy=policy,
        settings=settings,
        tasks={},
        tools=MetricTools(),
        user_factory=lambda task, seed: Asker("task", task.single_turn_prompt),
    )
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(process_index=0),
        state=SimpleNamespace(global_step=3),
        rows=[ROW] * num,
    )
    prompt = [{"role": "user", "content": "hi"}]
    return Conversations(online)([prompt] * num, trainer)


def test_ids_are_those_that_were_read_and_written_and_only_written_ones_have_a_loss():
    policy = ScriptedPolicy(["A", "\n", "\n", "B", "<|im_end|>"], ["yes", "<|im_end|>"])

    output = converse(policy, max_turns=2)

    (prompt_ids,), (ids,), (mask,) = (
        output[key] for key in ("prompt_ids", "completion_ids", "env_mask")
    )
    assert policy.read(prompt_ids) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert policy.read(ids) == (
        "A\n\nB<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    )
    written = [idx for idx, by_policy in zip(ids, mask, strict=True) if by_policy]
    assert policy.read(written) == "A\n\nB<|im_end|>yes<|im_end|>"
    newline, both = policy.encode("\n"), policy.encode("\n\n")
    assert len(both) == 1  # what the text would become
    assert written[1:3] == newline * 2
    assert policy.asked == [prompt_ids, prompt_ids + ids[: -len(policy.encode("yes")) - 1]]
    assert output["logprobs"] is None


BETWEEN = {
    "chatml": "\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n",
    "llama3_1": "<|start_header_id|>user<|end_header_id|>\n\nmore<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen2_5": "\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "\n<start_of_turn>user\nmore<end_of_turn>\n<start_of_turn>model\n",
    "gemma2": "\n<start_of_turn>user\nmore<end_of_turn>\n<start_of_turn>model\n",
    "phi3": "\n<|user|>\nmore<|end|>\n<|assistant|>\n",
    "gpt_oss": "<|start|>user<|message|>more<|end|><|start|>assistant",
    "mistral": "[INST] more [/INST]",
}


@pytest.mark.parametrize("family", BETWEEN)
def test_between_two_replies_stands_what_the_template_writes_there(family):
    policy = ScriptedPolicy(family=family)
    talk = _Talk(policy, [{"role": "user", "content": "hi"}], 0)

    between = talk._since_reply({"role": "user", "content": "more"})

    assert policy.read(between) == BETWEEN[family]


def test_a_template_without_an_end_token_is_refused():
    policy = ScriptedPolicy(["A", "<|im_end|>"])
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ValueError, match="writes no end token after a reply"):
        converse(policy, max_turns=2)


@pytest.mark.parametrize(
    "last", [["<|im_end|>"], [" ", "\n", "<|im_end|>"], ["too long"]], ids=["empty", "blank", "cut"]
)
def test_an_empty_or_a_cut_reply_ends_the_conversation_at_the_floor(last):
    policy = ScriptedPolicy(["A", "<|im_end|>"], last, ["never", "<|im_end|>"])

    output = converse(policy, max_turns=3)

    (estimate,), (ids,), (mask,) = (
        output[key] for key in ("estimate", "completion_ids", "env_mask")
    )
    assert estimate.value == FLOOR
    assert describe([estimate])["futures/floor"] == 1
    assert len(policy.asked) == 2
    length = len(policy.encode("".join(last)))
    assert mask[-length - 1 :] == [0] + [1] * length
    assert policy.read(ids).endswith("".join(last))


def test_a_reply_that_is_an_earlier_one_again_ends_the_conversation_at_the_floor():
    again = ["once upon a time", "<|im_end|>"]
    short = ["A", "<|im_end|>"]
    policy = ScriptedPolicy(short, again, short, again, ["never", "<|im_end|>"])

    output = converse(policy, max_turns=6)

    assert output["estimate"][0].value == FLOOR
    assert len(policy.asked) == 4
    assert policy.read(output["completion_ids"][0]).endswith("once upon a time<|im_end|>")


def test_a_full_context_ends_the_conversation_after_its_last_reply():
    policy = ScriptedPolicy(["A", "<|im_end|>"], max_context=40)

    output = converse(policy, max_turns=2)

    assert policy.read(output["completion_ids"][0]) == "A<|im_end|>"
    assert output["estimate"][0].futures[0].termination_reason == "context_full"
    assert output["estimate"][0].value == 0


def test_a_conversation_that_takes_too_long_has_no_reward_and_one_token_without_a_loss():
    output = converse(ScriptedPolicy(), reward_timeout_s=0.1)

    assert output["estimate"][0].value is None
    assert (output["completion_ids"], output["env_mask"]) == (
        [[make_tokenizer("chatml").eos_token_id]],
        [[0]],
    )


def test_conversations_of_a_prompt_are_sampled_apart_and_again_the_same():
    seeds = []
    for _ in range(2):
        policy = ScriptedPolicy(*[["A", "<|im_end|>"]] * 4)
        converse(policy, num=4, max_turns=1)
        seeds.append(policy.seeds)

    assert len(set(seeds[0])) == 4
    assert seeds[0] == seeds[1]


@pytest.mark.parametrize(
    ("credit", "train_first_token"),
    [("turn", True), ("conversation", True), ("turn", False), ("conversation", False)],
)
def test_the_gradient_is_that_worked_out_by_hand(grpo_flags, start_grpo, credit, train_first_token):
    flags = grpo_flags(
        credit=credit,
        train_first_token=train_first_token,
        max_turns=2,
        batch_size=8,
        num_generations=8,
        max_completion_length=24,
        temperature=0.8,
        lora_dropout=0.0,
        eval_ratio=0,
        sample_steps=0,
    )
    run, data = start_grpo(flags)
    trainer = run.method.build_trainer(run, data)
    rewarded = spy_on_rewards(trainer)
    rows = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1

    inputs = trainer._prepare_inputs(rows)
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    found = take_gradient(trainer.model)

    prompt = trainer.online.policy.tokenize(rows[0]["prompt"])
    ids, rewards = rewarded["completion_ids"], torch.tensor(rewarded["rewards"])
    masks = rewarded["masks"] or [[1] * len(row) for row in ids]
    assert any(0 in mask for mask in masks) == (credit == "conversation")
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    num_written = sum(map(sum, masks))  # also of tokens that have no loss
    if not train_first_token:
        masks = [without_first_tokens(mask) for mask in masks]
    lengths = torch.tensor([float(sum(mask)) for mask in masks])
    assert loss.item() == pytest.approx(-(advantages @ lengths).item() / num_written, abs=1e-5)

    def by_hand(ids, masks):
        total = sum(
            a * log_prob(trainer.model, prompt, row, mask, 0.8)
            for a, row, mask in zip(advantages, ids, masks, strict=True)
        )
        (-total / num_written).backward()
        return take_gradient(trainer.model)

    assert found.norm() > 0
    torch.testing.assert_close(found, by_hand(ids, masks), rtol=1e-3, atol=1e-6)
    if credit == "conversation" and train_first_token:
        alone = [[i for i, m in zip(*p, strict=True) if m] for p in zip(ids, masks, strict=True)]
        without_user = by_hand(alone, [[1] * len(row) for row in alone])
        with_user_trained = by_hand(ids, [[1] * len(row) for row in ids])
        for other in (without_user, with_user_trained):
            assert (found - other).norm() > 0.01 * found.norm()  # ten times the tolerance above
    trainer.online.close()


def without_first_tokens(mask):
    return [int(one and before) for before, one in pairwise([0, *mask])]


def spy_on_rewards(trainer):
    """Keep what the reward function gets and gives."""
    rewarded = {}
    reward, rollout = trainer.reward_funcs[0], trainer.rollout_func

    def spy(**arguments):
        rewarded["completion_ids"] = arguments["completion_ids"]
        rewarded["rewards"] = reward(**arguments)
        return rewarded["rewards"]

    def spy_on_rollout(prompts, trainer):
        output = rollout(prompts, trainer)
        rewarded["masks"] = output["env_mask"]
        return output

    trainer.reward_funcs, rewarded["masks"] = [spy], None
    if rollout:
        trainer.rollout_func = spy_on_rollout
    return rewarded


def take_gradient(model):
    """Return all gradients as one vector, and clear them."""
    parts = [p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return torch.cat(parts)


def log_prob(model, prompt, ids, mask, temperature):
    """Sum the log-probabilities of the masked tokens of one row, without padding."""
    logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / temperature
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    return (chosen * torch.tensor(mask)).sum()
