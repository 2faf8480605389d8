"""Prompts of online training: first messages of tasks, and which prompts leave room for a reply."""

from collections.abc import Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from trl.trainer.utils import RepeatSampler

from collabllm.data_processing.tokenization import place_system
from collabllm.messages import Message, with_system_prompt
from collabllm.tasks import Task
from collabllm.training.grpo_settings import GRPOSettings
from collabllm.training.preflight import Preflight

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
_PROMPTS = Features({"prompt": _MESSAGES, "single_turn_prompt": Value("string")})


def build_openings(tasks: Sequence[Task], settings: GRPOSettings) -> Dataset:
    """Return a prompt for each task: what its user says first."""
    rows: dict[str, list[Any]] = {"prompt": [], "single_turn_prompt": []}
    for task in tasks:
        opening = Message(role="user", content=task.first_message)
        rows["prompt"].append(with_system_prompt([opening], settings.system_prompt))
        rows["single_turn_prompt"].append(task.single_turn_prompt)
    return Dataset.from_dict(rows, features=_PROMPTS)


def fit_prompts(
    prompts: Dataset, tokenizer: "PreTrainedTokenizerBase", config: Any, room: int
) -> tuple[Dataset, Preflight]:
    """Keep prompts of at most `room` tokens, their system prompt where the template shows it."""
    report = Preflight("prompts")
    kept: dict[str, list[Any]] = {"prompt": [], "single_turn_prompt": []}
    lengths = []
    for row in prompts:
        messages = place_system(row["prompt"], tokenizer)
        length = _count(messages, tokenizer, config)
        report.num_items += 1
        if length > room:
            report.num_lost += 1
            continue
        lengths.append(length)
        kept["prompt"].append(messages)
        kept["single_turn_prompt"].append(row["single_turn_prompt"])
    report.num_rows = len(lengths)
    report.set_lengths(lengths)
    return Dataset.from_dict(kept, features=_PROMPTS), report


class PromptSampler(RepeatSampler):
    """TRL's repeats of prompts, in an order of each epoch, which a resumed run has, too.

    With the openings of one task together, a step with room for several prompts mostly has all
    openings of a task, and the sum of their gradients is what sets them apart, not how many of each
    kind chance has put into it. The last prompts, too few for a step, are others in each epoch.

    Args:
        prompts: What is sampled from; only its length counts.
        tasks: The task of each prompt, to keep those of one together; None to shuffle all prompts,
            in the first epoch as TRL does.
        seed: Seed of the order, with the epoch; None for prompts as they are.
        repeats: As of TRL's sampler.
    """

    def __init__(
        self, prompts: Sized, tasks: Sequence[str] | None, seed: int | None, **repeats: int
    ) -> None:
        super().__init__(prompts, shuffle=False, **repeats)
        self.tasks, self.order_seed, self.epoch = tasks, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield indices of prompts, each repeated as TRL wants it."""
        order = self._order()
        for index in super().__iter__():
            yield order[index]

    def _order(self) -> list[int]:
        if self.order_seed is None:
            return list(range(self.num_samples))
        if self.tasks is None:
            generator = torch.Generator().manual_seed(self.order_seed + self.epoch)
            shuffled: list[int] = torch.randperm(self.num_samples, generator=generator).tolist()
            return shuffled
        tasks = list(dict.fromkeys(self.tasks))
        places = np.random.default_rng([self.order_seed, self.epoch]).permutation(len(tasks))
        place_of = dict(zip(tasks, places, strict=True))
        together = np.argsort([place_of[task] for task in self.tasks], kind="stable")
        return [int(index) for index in together]


def _count(messages: Any, tokenizer: Any, config: Any) -> int:
    encoded = tokenizer.apply_chat_template(
        messages,
        add_generation_prompt=True,
        return_dict=True,
        **(config.chat_template_kwargs or {}),
    )
    return len(encoded["input_ids"])


def describe_prompts(report: Preflight, room: int) -> str:
    """Say how many prompts there are, and how long."""
    lengths = ", ".join(f"{name} {length}" for name, length in report.length_quantiles.items())
    return "\n".join(
        [
            f"Preflight, training: {report.num_rows:,} prompts",
            f"  length in tokens: {lengths}",
            f"  longer than {room}, left out: {report.num_lost:,}",
            *(f"  {note}" for note in report.notes),
        ]
    )
