"""Find the final artefact of a conversation: by rule where possible, else by a language model."""

import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from functools import partial

from collabllm.messages import Message
from collabllm.rewards.program_names import defined_names, used_names, wanted_by
from collabllm.rewards.registry import MetricTools, extractor, last_reply
from collabllm.tasks import Task

_FENCED = re.compile(r"^[ \t]*```([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = ("", "python", "py", "python3")
_ANSWER_IS = re.compile(  # "the result is that ..." goes on telling; a number or a formula answers
    r"\b(?:answer\b|result\b(?=\s*(?:is|:|=)[\s:]*(?:\d|[^\w\s:])))"
    r"\s*(?:is|:|=)(?:\s*:)?\s*(.+?)(?:\.\s|\.$|\n|$)",
    re.IGNORECASE,
)
_IN_DOLLARS = re.compile(r"^\$*([^$]*)\$*$")  # not "$1$ or $2$"


def find_code(text: str, names: Collection[str] = ()) -> str | None:
    """Return the fenced block that is the program, with the earlier ones that it builds on.

    Args:
        text: Markdown.
        names: What the program has to define; the last Python block that defines most of them
            is taken, so not an example or a shell command after it. Without names it is
            the last Python block, or else the last block.
    """
    found = [
        (kind.lower(), textwrap.dedent(body).strip("\n")) for kind, body in _FENCED.findall(text)
    ]
    python = [body for kind, body in found if kind in _PYTHON]
    if not python:
        return found[-1][1] if found else None
    scores = [len(defined_names(body) & set(names)) for body in python]
    best = max(range(len(python)), key=lambda idx: (scores[idx], idx))
    return _with_earlier(python[: best + 1])


def _with_earlier(blocks: list[str]) -> str:
    """Put before the last block those that define what it uses and does not define."""
    program = blocks[-1]
    for block in reversed(blocks[:-1]):
        if defined_names(block) & (used_names(program) - defined_names(program)):
            program = f"{block}\n\n{program}"
    return program


def find_answer(text: str) -> str | None:
    r"""Return what the last `\boxed{}` holds, or what follows "answer is", or "result is 12"."""
    boxed = find_boxed(text)
    if boxed is not None:
        return boxed
    found = _ANSWER_IS.findall(text)
    return _IN_DOLLARS.sub(r"\1", found[-1].strip(" *")).strip(" *") if found else None


def find_boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{}`, whose braces may be nested."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    begin = start + len("\\boxed{")
    for idx in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[idx], 0)
        if depth == 0:
            return text[begin:idx]
    return None


@extractor("code")
async def extract_code(conversation: Sequence[Message], task: Task, tools: MetricTools) -> str:
    """Return the assistant's last program, else what the judge finds, else the last reply."""
    names = wanted_by(task.metadata)
    return await _extract(conversation, task, tools, partial(find_code, names=names), "code")


@extractor("answer")
async def extract_answer(conversation: Sequence[Message], task: Task, tools: MetricTools) -> str:
    """Return the last marked answer, else what the judge finds, else the last reply."""
    return await _extract(conversation, task, tools, find_answer, "answer")


async def _extract(
    conversation: Sequence[Message],
    task: Task,
    tools: MetricTools,
    find: Callable[[str], str | None],
    kind: str,
) -> str:
    for message in reversed(conversation):
        if message["role"] == "assistant" and (found := find(message["content"])):
            return found
    if tools.judge is None:
        return last_reply(conversation)  # a missing value would be a way round a 0
    return await tools.judge.extract(conversation, task, kind)
