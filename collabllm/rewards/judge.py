"""A language model that rates and extracts; what it reads is data, never an instruction."""

import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import json_repair

from collabllm.messages import Message, to_chat
from collabllm.prompts import load_prompt
from collabllm.rewards.registry import MetricMissingError
from collabllm.servers.client import OpenAIClient
from collabllm.servers.completion import Completion
from collabllm.tasks import Task

logger = logging.getLogger(__name__)

_MAX_TRIES = 3
_RETRY_TEMPERATURE = 0.5  # the same request at temperature 0 would be answered and paid again
_MORE_ROOM = 2
_RATING_TOKENS = 1024
_REMOVED = "[removed: words to the judge]"
_ARTEFACTS = {
    "document": "the latest full version of the document that the user wants written",
    "code": "the latest full version of the program that the user wants",
    "answer": "the assistant's final answer to the user's question, as short as it can be given",
}
_PART = re.compile(r"<!--.*?(?:-->|\Z)|[^.!?\n]+[.!?]*|\n", re.DOTALL)
_TO_JUDGE = re.compile(
    r"\b(?:note|message|attention|instructions?|dear|for|to)\b.{0,12}"
    r"\b(?:judge(?!(?<=dear judge)(?: (?-i:[A-Z])[\w.'-]+){1,2}[,:]?[ \t]*(?:\n|\Z))|"  # a person
    r"evaluator|grader|rater|scorer|reviewer model|reward model)\b"
    r"|[\"'{]\s*score[\"']?\s*[:=]|\bscore\s*[:=]\s*[01]\b"
    r"|\b(?:ignore|disregard|forget)\b.{0,40}\b(?:instruction|prompt|rubric|scale|rule)s?\b"
    r"|\b(?:give|assign|award|return|output|answer|rate|score)\b(?! your (?:essay|paper|report|"
    r"project|application|exam|story)\b).{0,40}"
    r"\b(?:highest|maximum|top|full|perfect|best)\s+(?:score|rating|marks?|points)\b"
    r"|\b(?:give|assign|award|rate|score)\b.{0,30}\ba (?:score|rating) of\b"
    r"|\b(?:rate|score|grade|mark)\b.{0,30}\b(?:as|with|at)\s+(?:a\s+)?(?:1|one|correct|right)\b"
    r"|\b(?:rating|grade|verdict)\s*[:=]\s*[01]\b"
    r"|\b(?:evaluator|grader|rater|scorer)s?\s*:|</?data-",
    re.IGNORECASE | re.DOTALL,
)
_ASSIGNS = re.compile(r"^[^#\"'`]*\b(?:score|rating|grade|verdict)\s*=\s*[01]\b", re.IGNORECASE)


class Judge:
    """A language model behind an OpenAI-compatible server that rates and extracts.

    Answers follow a JSON schema where the server takes one. The texts to judge stand between marks
    that their writer cannot foresee, and the sentences of a reply that speak to a judge are taken
    out before it reads them.

    Args:
        client: The one client of the run.
        model: The server's name of the model.
        max_tokens: Most tokens of an extracted text (`--judge_max_tokens`); one that is cut is
            asked for once more with twice the room.
    """

    def __init__(self, client: OpenAIClient, model: str, max_tokens: int = 2048) -> None:
        self.client, self.model, self.max_tokens = client, model, max_tokens

    async def rate(self, prompt_name: str, anchors: Sequence[float], **texts: str) -> float:
        """Ask for a score that must be one of the anchors.

        Raises:
            MetricMissingError: If no answer has one, after three tries.
            ServerError: If the server fails for good.
        """
        schema = {"why": {"type": "string"}, "score": {"enum": list(anchors)}}

        def read(answer: Mapping[str, Any]) -> float | None:
            try:
                value = float(answer["score"])
            except (KeyError, TypeError, ValueError, OverflowError):  # 1 and 320 zeros
                return None
            return value if value in anchors else None

        scale = " or ".join(f"{anchor:g}" for anchor in anchors)
        failure = f"the judge gave no score of {scale}"
        return float(await self._ask(prompt_name, schema, read, failure, _RATING_TOKENS, texts))

    async def extract(self, conversation: Sequence[Message], task: Task, kind: str) -> str:
        """Let the model copy the final artefact out of a conversation; "" where there is none.

        Raises:
            MetricMissingError: If the answer is unreadable.
            ServerError: If the server fails for good.
        """
        texts = {"kind": _ARTEFACTS[kind], "conversation": to_json(conversation)}

        def read(answer: Mapping[str, Any]) -> str | None:
            found = answer.get("artefact")
            return found if isinstance(found, str) else None

        schema = {"artefact": {"type": "string"}}
        failure = f"the judge's copy of the {kind} is unreadable"
        return str(
            await self._ask("extract_artefact", schema, read, failure, self.max_tokens, texts)
        )

    async def _ask(
        self,
        prompt_name: str,
        schema: Mapping[str, Any],
        read: Any,
        failure: str,
        max_tokens: int,
        texts: Mapping[str, str],
    ) -> Any:
        """Fill one of our prompts, and return what `read` finds in the object that is answered."""
        request = [Message(role="user", content=fill_prompt(prompt_name, texts))]
        has_more_room = False
        for attempt in range(_MAX_TRIES):
            answer = await self.client.complete(
                request,
                self.model,
                role="judge",
                temperature=_RETRY_TEMPERATURE if attempt else 0.0,
                max_tokens=max_tokens,
                seed=attempt,
                response_format=_response_format(prompt_name, schema),
                keep_if=lambda answer: (
                    answer.finish_reason != "length" and _first_readable(answer, read) is not None
                ),
            )
            if answer.finish_reason == "length":
                if has_more_room:
                    raise MetricMissingError(
                        f"the judge's answer is longer than {max_tokens} tokens; raise "
                        "--judge_max_tokens"
                    )
                max_tokens, has_more_room = _MORE_ROOM * max_tokens, True
            elif (found := _first_readable(answer, read)) is not None:
                return found
            logger.info("The judge's output was unreadable or cut (try %d).", attempt + 1)
        raise MetricMissingError(f"{failure}, {_MAX_TRIES} times")


def fill_prompt(name: str, texts: Mapping[str, str]) -> str:
    """Fill a prompt; what is judged stands between marks that its writer cannot foresee.

    The marks derive from the texts themselves, so that a cached answer is found again.
    """
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]
    marked = {
        key: text if key == "kind" else f"<data-{digest}>\n{text}\n</data-{digest}>"
        for key, text in texts.items()
    }
    body = Template(load_prompt(name)).substitute(marked)
    return f"{body}\n\n{Template(load_prompt('judge_data')).substitute(mark=f'data-{digest}')}"


def to_json(conversation: Sequence[Message]) -> str:
    """Write what was said as JSON."""
    spoken = [message for message in to_chat(conversation) if message["role"] != "system"]
    return json.dumps(spoken, ensure_ascii=False, indent=1)


def without_orders(conversation: Sequence[Message]) -> list[Message]:
    """Copy a conversation, and take out what the assistant says to a judge."""
    return [
        Message(role=message["role"], content=_remove_orders(message["content"]))
        if message["role"] == "assistant"
        else message
        for message in to_chat(conversation)
    ]


def _remove_orders(text: str) -> str:
    # Letters of another width, and invisible ones between them, hide no word.
    plain = unicodedata.normalize("NFKC", text)
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    if not _TO_JUDGE.search(plain):
        return text
    parts, is_code = [], False
    for part in _PART.findall(plain):
        is_code ^= part.count("```") % 2 == 1
        said = _ASSIGNS.sub("", part) if is_code else part  # "score = 0" is a line of a program
        parts.append(_REMOVED if _TO_JUDGE.search(said) else part)
    return "".join(parts) if _REMOVED in parts else text


def _response_format(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an answer; the client leaves it out where it is refused."""
    schema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
    content = {"name": name, "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": content}


def _first_readable(answer: Completion, read: Any) -> Any:
    """Return what `read` finds in the first object that has it; notes after it do not count."""
    for found in _objects(answer.text):
        if (value := read(found)) is not None:
            return value
    return None


def _objects(text: str) -> list[Mapping[str, Any]]:
    """Return the JSON objects of a text in order, else what can be repaired to some.

    What is nested too deep, or has a number of more digits than Python reads, is none.
    """
    decoder, found, start = json.JSONDecoder(), [], text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found.append(value)
        start = text.find("{", end)
    if not found:
        try:
            repaired = json_repair.loads(text)
        except (ValueError, RecursionError):
            return []
        found = repaired if isinstance(repaired, list) else [repaired]
    return [value for value in found if isinstance(value, dict)]
