"""What rollout_throughput.py compares with: plain `generate`, one at a time and in lock step."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from collabllm.data_processing import DEFAULT_SYSTEM_PROMPT
from collabllm.hub import BUNDLED_MODEL
from collabllm.messages import Message
from collabllm.models import load_base_model, load_tokenizer
from collabllm.simulation import OpenAIClient, OpenAIUserModel, UserModel
from collabllm.tasks import Task


@dataclass
class Result:
    """One way of simulating."""

    name: str
    conversations: int
    seconds: float
    tokens: int
    prompt_tokens_encoded: int


def make_user(task: Task, client: OpenAIClient) -> UserModel:
    """Make the user of a conversation."""
    return OpenAIUserModel("", task.single_turn_prompt, "user", client=client)


def start(task: Task) -> list[Message]:
    """Begin a conversation with the system prompt."""
    return [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}]


def generate(
    model: Any, tokenizer: Any, talks: list[list[Message]], length: int
) -> tuple[list[str], int]:
    """Answer conversations in one left-padded batch, encoding everything; return tokens read."""
    prompts = [
        tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        for talk in talks
    ]
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(p)) + p for p in prompts])  # [batch, width]
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with torch.no_grad():
        output = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=length,
            min_new_tokens=length,
            do_sample=False,
            pad_token_id=2,
        )
    texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return texts, sum(map(len, prompts))


def measure_one_at_a_time(tasks: list[Task], client: OpenAIClient, args: Any) -> Result:
    """(a) One conversation after the other, plain generate."""
    model = load_base_model(BUNDLED_MODEL, dtype=torch.float32)
    tokenizer = load_tokenizer(BUNDLED_MODEL)
    started, encoded = time.perf_counter(), 0
    for task in tasks:
        user, talk = make_user(task, client), start(task)
        for _ in range(args.max_turns):
            talk.append({"role": "user", "content": user.generate(talk).response})
            texts, read = generate(model, tokenizer, [talk], args.max_new_tokens)
            talk.append({"role": "assistant", "content": texts[0]})
            encoded += read
    return finish("(a) one at a time", tasks, args, started, encoded)


def measure_lock_step(tasks: list[Task], client: OpenAIClient, args: Any) -> Result:
    """(b) All users answer, then all assistants in one padded batch, turn by turn."""
    model = load_base_model(BUNDLED_MODEL, dtype=torch.float32)
    tokenizer = load_tokenizer(BUNDLED_MODEL)
    started, encoded = time.perf_counter(), 0
    for first in range(0, len(tasks), args.concurrency):
        group = tasks[first : first + args.concurrency]
        users, talks = [make_user(t, client) for t in group], [start(t) for t in group]
        for _ in range(args.max_turns):
            with ThreadPoolExecutor(len(group)) as pool:
                turns = pool.map(
                    lambda pair: pair[0].generate(pair[1]), zip(users, talks, strict=True)
                )
                for talk, turn in zip(talks, turns, strict=True):
                    talk.append({"role": "user", "content": turn.response})
            texts, read = generate(model, tokenizer, talks, args.max_new_tokens)
            encoded += read
            for talk, text in zip(talks, texts, strict=True):
                talk.append({"role": "assistant", "content": text})
    return finish("(b) lock step", tasks, args, started, encoded)


BASELINES = (measure_one_at_a_time, measure_lock_step)


def finish(name: str, tasks: list[Task], args: Any, started: float, encoded: int) -> Result:
    """Stop the clock."""
    tokens = len(tasks) * args.max_turns * args.max_new_tokens
    return Result(name, len(tasks), time.perf_counter() - started, tokens, encoded)
