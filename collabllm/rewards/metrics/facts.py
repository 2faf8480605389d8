"""Metrics of tasks with facts: was what is needed asked for, and what is not needed left alone."""

from collections.abc import Sequence

from collabllm.messages import Message
from collabllm.rewards.registry import MetricTools, NotApplicableError, metric
from collabllm.tasks import Fact, Task
from collabllm.tasks.matching import facts_told, find_asking, find_questions
from collabllm.tasks.results import share_of_values_used, user_words

ASKED_RESULT = "the reference has questions, which a result may have, too"


@metric("facts_elicited", needs={"facts"})
async def facts_elicited(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Return the share of the facts missing from the opening that the user told later, in [0, 1].

    Facts count by their weight.

    Not applicable where the opening holds them all.
    """
    facts = _facts(task)
    users = [message for message in conversation if message["role"] == "user"]
    needed = {fact.name for fact in facts} - facts_told(facts, users[:1])
    if not needed:
        raise NotApplicableError("the opening holds every fact")
    told = facts_told(facts, users)
    weights = {fact.name: fact.weight for fact in facts if fact.name in needed}
    return sum(weights[name] for name in needed & told) / sum(weights.values())


@metric("over_asking", needs={"facts"}, lower_is_better=True)
async def over_asking(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Return the share of the assistant's questions that no fact still unknown answers, in [0, 1].

    A question for something already said, or for something the user has no preference about,
    counts; so does the second of two questions for one fact. A sentence counts as one question for
    each six things that it asks for. 0 when nothing was asked.

    Not applicable where the reference has questions, as a quiz does: they are the result.
    """
    _refuse_asked_results(task)
    replies = find_asking(_facts(task), conversation)
    asked = sum(reply.num_questions for reply in replies)
    return sum(reply.num_needless for reply in replies) / asked if asked else 0.0


@metric("asks_needlessly", lower_is_better=True)
async def asks_needlessly(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Return 1 if the assistant asked although the opening says everything, and 0 if it did not.

    The user's first message says everything if it tells every fact or, for a task without facts, is
    the whole goal. Not applicable elsewhere, nor where the reference has questions, as a quiz does.
    """
    _refuse_asked_results(task)
    users = [message for message in conversation if message["role"] == "user"]
    if {fact.name for fact in task.facts} - facts_told(task.facts, users[:1]):
        raise NotApplicableError("the opening leaves out facts")
    opening = users[0]["content"] if users else task.opening
    if not task.facts and opening.strip() != task.single_turn_prompt.strip():
        raise NotApplicableError("nobody can say whether the opening leaves something out")
    return float(any(reply.questions for reply in find_asking(task.facts, conversation)))


@metric("facts_used", needs={"facts"})
async def facts_used(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Rate the best reply: share of the facts that it puts to use x how much of a result it is.

    Both are those of `tasks.results.share_of_values_used`: a fact must have been told before, and a
    result must add to the user's own words, near the reference. In [0, 1].
    """
    if not any(fact.value for fact in _facts(task)):
        raise NotApplicableError("the task's facts have no values")
    return max(
        (
            share_of_values_used(task, message["content"], user_words(conversation[:idx]))
            for idx, message in enumerate(conversation)
            if message["role"] == "assistant"
        ),
        default=0.0,
    )


def _refuse_asked_results(task: Task) -> None:
    if find_questions(task.single_turn_completion):
        raise NotApplicableError(ASKED_RESULT)


def _facts(task: Task) -> tuple[Fact, ...]:
    if not task.facts:
        raise NotApplicableError("the task has no facts")
    return task.facts
