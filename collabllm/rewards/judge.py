"""Metrics that need a language model's judgement, and the extraction of final artefacts."""

import json
import logging
from collections.abc import Sequence
from string import Template
from typing import Any

import json_repair

from collabllm.messages import Message, to_chat
from collabllm.prompts import load_prompt
from collabllm.rewards.registry import (
    MetricMissingError,
    MetricTools,
    NotApplicableError,
    last_reply,
)
from collabllm.servers.client import OpenAIClient
from collabllm.tasks import Task

logger = logging.getLogger(__name__)

_MAX_TRIES = 3
_ANCHORS = (0.0, 0.5, 1.0)
_ARTEFACTS = {
    "document": "the latest full version of the document that the user wants written",
    "code": "the latest full version of the program that the user wants",
    "answer": "the assistant's final answer to the user's question, as short as it can be given",
}


class Judge:
    """A language model behind an OpenAI-compatible server that rates and extracts.

    Args:
        client: The one client of the run.
        model: The server's name of the model.
        max_tokens: Most tokens of an answer.
    """

    def __init__(self, client: OpenAIClient, model: str, max_tokens: int = 2048) -> None:
        self.client, self.model, self.max_tokens = client, model, max_tokens

    async def ask(self, prompt_name: str, field: str, **texts: str) -> Any:
        """Fill one of our prompts, and return a field of the JSON object that is answered.

        Raises:
            MetricMissingError: If no answer is readable, after three tries.
            ServerError: If the server fails for good.
        """
        content = Template(load_prompt(prompt_name)).substitute(texts)
        for attempt in range(_MAX_TRIES):
            answer = await self.client.complete(
                [{"role": "user", "content": content}],
                self.model,
                role="judge",
                temperature=0.0,
                max_tokens=self.max_tokens,
                seed=attempt,
            )
            if answer.finish_reason != "length":
                found = json_repair.loads(answer.text)
                found = found[-1] if isinstance(found, list) and found else found
                if isinstance(found, dict) and found.get(field) is not None:
                    return found[field]
            logger.info("The judge's output was unreadable (try %d).", attempt + 1)
        raise MetricMissingError(f"the judge's output was unreadable {_MAX_TRIES} times")

    async def rate(self, prompt_name: str, anchors: Sequence[float], **texts: str) -> float:
        """Ask for a score that must be one of the anchors.

        Raises:
            MetricMissingError: If it is not.
        """
        score = await self.ask(prompt_name, "score", **texts)
        try:
            value = float(score)
        except (TypeError, ValueError):
            value = float("nan")
        if value not in anchors:
            raise MetricMissingError("the judge gave a score off the scale")
        return value

    async def extract(self, conversation: Sequence[Message], task: Task, kind: str) -> str:
        """Let the model copy the final artefact out of a conversation.

        Raises:
            MetricMissingError: If there is none, or the answer is unreadable.
        """
        found = await self.ask(
            "extract_artefact",
            "artefact",
            kind=_ARTEFACTS[kind],
            conversation=_to_text(conversation),
        )
        if not isinstance(found, str) or not found.strip():
            raise MetricMissingError(f"the judge found no {kind} in the conversation")
        return found


async def interactivity(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Let the judge rate how well the assistant works with the user: 0, 0.5 or 1."""
    return await _judge(tools).rate(
        "judge_interactivity", _ANCHORS, conversation=_to_text(conversation)
    )


async def accuracy_judged(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    """Let the judge compare the last reply with the reference: 0 or 1."""
    if not task.single_turn_completion.strip():
        raise NotApplicableError("the task has no reference (single_turn_completion)")
    return await _judge(tools).rate(
        "judge_accuracy",
        (0.0, 1.0),
        goal=task.single_turn_prompt,
        reference=task.single_turn_completion,
        reply=last_reply(conversation),
    )


async def extract_document(conversation: Sequence[Message], task: Task, tools: MetricTools) -> str:
    """Let the judge copy the latest version of the document out of the conversation."""
    return await _judge(tools).extract(conversation, task, "document")


def _judge(tools: MetricTools) -> Judge:
    if tools.judge is None:
        raise MetricMissingError("there is no judge")
    return tools.judge


def _to_text(conversation: Sequence[Message]) -> str:
    spoken = [message for message in to_chat(conversation) if message["role"] != "system"]
    return json.dumps(spoken, ensure_ascii=False, indent=1)
