"""Metrics of tasks with facts: was what is needed asked for, and what is not needed left alone."""

from collections.abc import Sequence

from collabllm.messages import Message
from collabllm.rewards.registry import MetricTools, NotApplicableError, last_reply
from collabllm.simulation.user_models.rule_based import ShardedUserModel
from collabllm.tasks import Task
from collabllm.tasks.matching import find_questions


async def facts_elicited(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Return the share of the facts missing from the opening that the user told later, in [0, 1].

    Facts count by their weight.

    Not applicable where the opening holds them all.
    """
    user = _user(task)
    users = [message for message in conversation if message["role"] == "user"]
    at_first = user.facts_told(users[:1])
    needed = {fact.name for fact in task.facts} - at_first
    if not needed:
        raise NotApplicableError("the opening holds every fact")
    told = user.facts_told(users)
    weights = {fact.name: fact.weight for fact in task.facts if fact.name in needed}
    return sum(weights[name] for name in needed & told) / sum(weights.values())


async def over_asking(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Return the share of the assistant's questions that no fact still unknown answers, in [0, 1].

    A question for something already said, or for something the user has no preference about,
    counts; so does the second of two questions for one fact. 0 when nothing was asked.
    """
    user = _user(task)
    asked = needless = 0
    for idx, message in enumerate(conversation):
        if message["role"] != "assistant":
            continue
        questions = find_questions(message["content"])
        known = user.facts_told(conversation[:idx])
        asked += len(questions)
        needless += len(questions) - len(user.facts_asked_for(questions, known))
    return needless / asked if asked else 0.0


async def facts_used(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Return the share of the task's facts whose value stands in the last reply, in [0, 1]."""
    values = [fact.value for fact in _user(task).shards if fact.value]
    if not values:
        raise NotApplicableError("the task's facts have no values")
    reply = last_reply(conversation).lower()
    return sum(value.lower() in reply for value in values) / len(values)


def _user(task: Task) -> ShardedUserModel:
    if not task.facts:
        raise NotApplicableError("the task has no facts")
    return ShardedUserModel.from_task(task)
