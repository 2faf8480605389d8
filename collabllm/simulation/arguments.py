"""Flags that all scripts with simulated conversations share."""

import json
from argparse import ArgumentParser, Namespace

from collabllm.data_processing.dataset_utils import DEFAULT_SYSTEM_PROMPT
from collabllm.tasks import DEMO_TASKS, Task, choose_side, load_tasks

BUNDLED_MODEL = "smollm2-135m-instruct"


def add_model_arguments(parser: ArgumentParser, max_new_tokens: int = 256) -> None:
    """Add the flags of the local model and of generation."""
    add = parser.add_argument
    add("--hf_model_path", default=BUNDLED_MODEL, help="local assistant: model")
    add("--use_4bit", action="store_true", help="local assistant: load in NF4")
    add("--tokenizer_path", help="assistant behind a server: its tokenizer, for exact counts")
    add("--max_new_tokens", type=int, default=max_new_tokens, help="most tokens of a reply")
    add("--temperature", type=float, default=0.7, help="of the assistant; 0 is greedy")
    add("--system_prompt", default=DEFAULT_SYSTEM_PROMPT, help='assistant\'s; "" for none')


def add_assistant_arguments(parser: ArgumentParser) -> None:
    """Add the flags of one assistant, local or behind a server."""
    add_model_arguments(parser)
    add = parser.add_argument
    add("--lora_path", help="local assistant: adapter")
    add("--assistant_base_url", help="assistant behind a server: its address")
    add("--assistant_model", help="assistant behind a server: its name there")


def add_user_arguments(parser: ArgumentParser) -> None:
    """Add the flags of the simulated user."""
    add = parser.add_argument
    add("--user", choices=("sharded", "openai"), default="sharded", help="who plays the user")
    add("--user_model", default="gpt-4o-mini", help="openai user: model")
    add("--user_base_url", help="openai user: address of the server")
    add("--user_max_tokens", type=int, default=1024, help="openai user: most tokens of an answer")
    add("--num_traits", type=int, default=0, help="openai user: random persona traits each")


def add_task_arguments(parser: ArgumentParser) -> None:
    """Add the flags that choose tasks."""
    add = parser.add_argument
    add("--tasks", default=DEMO_TASKS, help="task file, dataset (Hub id or folder), or demo")
    add("--tasks_split", default="train", help="split of a Hub dataset")
    add(
        "--task_columns",
        type=json.loads,
        metavar="JSON",
        help='columns of a foreign dataset, {"single_turn_prompt": "question", …}',
    )
    add("--side", choices=("all", "train", "eval"), default="all", help="of the training's split")
    add("--eval_ratio", type=float, default=0.1, help="share held out in training")
    add("--split_by", default="single_turn_prompt", help="column that training split by")
    add("--num_tasks", type=int, help="take only the first tasks")


def load_chosen_tasks(args: Namespace) -> list[Task]:
    """Load the tasks that the flags name."""
    limit = args.num_tasks if args.side == "all" else None
    tasks = load_tasks(args.tasks, limit, args.tasks_split, args.task_columns)
    return choose_side(tasks, args.side, args.eval_ratio, args.split_by)[: args.num_tasks]


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
    add("--cache_mode", choices=("record", "replay"), default="record", help="use of --cache")
