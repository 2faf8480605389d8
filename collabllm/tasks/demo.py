"""The demo's tasks, drawn from its material."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from collabllm.data.demo_generator import end_sentence, load_material
from collabllm.tasks.task import Fact, Task

_TASKS_PER_DOMAIN = 4


def demo_tasks(seed: int = 0, domains: Sequence[str] | None = None) -> list[Task]:
    """Draw tasks from the demo material, four a domain, the domains taking turns.

    Args:
        seed: The same seed gives the same tasks.
        domains: Only these; all by default.
    """
    rounds: list[list[Task]] = [[] for _ in range(_TASKS_PER_DOMAIN)]
    for name, domain in load_material().items():
        if domains is not None and name not in domains:
            continue
        random_ = random.Random(f"task-{seed}-{name}")
        for idx, tasks in enumerate(rounds):
            tasks.append(_demo_task(name, domain, idx, random_))
    return [task for tasks in rounds for task in tasks]


def _demo_task(name: str, domain: Mapping[str, Any], idx: int, random_: random.Random) -> Task:
    values = {fact: random_.choice(spec["values"]) for fact, spec in domain["facts"].items()}
    facts = tuple(
        Fact(fact, spec["say"][0].format(v=values[fact]), tuple(spec["cues"]), values[fact])
        for fact, spec in domain["facts"].items()
    )
    opening = domain["openings"][idx % len(domain["openings"])]
    done: str = domain["done"][idx % len(domain["done"])].format(**values)
    return Task(
        task_id=f"{name}-{idx}",
        single_turn_prompt=" ".join([end_sentence(opening), *(fact.answer for fact in facts)]),
        single_turn_completion=done[0].upper() + done[1:],
        task_desc=name.replace("_", " "),
        opening=opening,
        facts=facts,
        metadata={"domain": name},
    )
