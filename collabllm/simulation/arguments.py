"""Flags of scripts/evaluate.py, until it parses settings itself."""

import dataclasses
import json
from argparse import ArgumentParser, Namespace
from typing import TypeVar

from collabllm.data_processing.dataset_utils import DEFAULT_SYSTEM_PROMPT
from collabllm.simulation.settings import BUNDLED_MODEL
from collabllm.tasks import DEMO_TASKS

S = TypeVar("S")


def take(settings: type[S], args: Namespace) -> S:
    """Make settings of the flags that carry their names."""
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    return settings(**{name: getattr(args, name) for name in names})


def add_model_arguments(parser: ArgumentParser, max_new_tokens: int = 256) -> None:
    """Add the flags of the local model and of generation."""
    add = parser.add_argument
    add("--hf_model_path", default=BUNDLED_MODEL, help="local assistant: model")
    add("--load_in_4bit", "--use_4bit", action="store_true", help="local assistant: load in NF4")
    add("--tokenizer_path", help="assistant behind a server: its tokenizer, for exact counts")
    add("--max_new_tokens", type=int, default=max_new_tokens, help="most tokens of a reply")
    add("--temperature", type=float, default=0.7, help="of the assistant; 0 is greedy")
    add("--system_prompt", default=DEFAULT_SYSTEM_PROMPT, help='assistant\'s; "" for none')


def add_task_arguments(parser: ArgumentParser) -> None:
    """Add the flags that choose tasks."""
    add = parser.add_argument
    add("--tasks", default=DEMO_TASKS, help="task file, dataset (Hub id or folder), or demo")
    add("--dataset_split", "--tasks_split", default="train", help="split of a Hub dataset")
    add(
        "--task_columns",
        type=json.loads,
        metavar="JSON",
        help='columns of a foreign dataset, {"single_turn_prompt": "question", …}',
    )
    add("--held_out_of", metavar="RUN", help="training run: take only tasks that it held out")
    add("--side", choices=("all", "train", "eval"), default="all", help="of the training's split")
    add("--eval_ratio", type=float, default=0.1, help="share held out in training")
    add("--split_by", default="single_turn_prompt", help="column that training split by")
    add("--num_tasks", type=int, help="take only the first tasks")


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add the flags of concurrency, seeds, costs and the cache."""
    add = parser.add_argument
    add("--concurrency", type=int, default=16, help="most conversations at once")
    add("--seed", type=int, default=0, help="of the whole run")
    add("--max_cost", type=float, help="stop after this many dollars; the file can be resumed")
    add(
        "--prices",
        type=json.loads,
        metavar="JSON",
        help='dollars a million tokens, {"model": [prompt, completion]}',
    )
    add("--tokens_per_minute", type=int, help="limit of each server")
    add("--cache", metavar="FILE", help="SQLite file of server answers")
    add("--replay", metavar="FILE", help="file of --cache: all answers come from it")
