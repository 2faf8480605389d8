"""The conversations of a chat page: bounded, edited, saved as transcripts after every change."""

import asyncio
import json
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from collabllm.chat.writing import ReplyFacts, Writing
from collabllm.errors import SimulationError
from collabllm.evaluation.desk import ArmDesk
from collabllm.files import write_text
from collabllm.messages import Message, to_valid_text, with_system_prompt
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.record import Record
from collabllm.simulation.simulator import ReplyInfo, RolloutResult, derive_seed
from collabllm.simulation.user_models import UserTurnResult
from collabllm.web import UserError

MAX_LETTERS = 8000
MAX_TURNS = 100
_BUSY = "Too many replies are being written; try again in a moment."


@dataclass
class Side:
    """One arm's side of a conversation; `replies` has what is known of each of its replies."""

    arm: str
    messages: list[Message] = field(default_factory=list)
    replies: list[ReplyFacts] = field(default_factory=list)
    num_tries: int = 0


@dataclass
class Talk:
    """One conversation with one arm or two; only who has the `key` reaches it."""

    key: str
    name: str
    system_prompt: str
    sides: list[Side]
    tasks: set["asyncio.Task[ReplyFacts]"] = field(default_factory=set)


class Talks:
    """All conversations of a server.

    Args:
        desk: Answers.
        prompts: Default system prompt of each arm.
        folder: Where conversations are saved, one file each.
        max_talks: How many are kept; the longest unused one goes for a new one.
        max_replies: How many replies may be under way at once.
    """

    def __init__(
        self,
        desk: ArmDesk,
        prompts: dict[str, str],
        folder: Path,
        max_talks: int = 200,
        max_replies: int = 16,
    ) -> None:
        self.desk, self.prompts, self.folder = desk, prompts, folder
        self.max_talks, self.max_replies = max_talks, max_replies
        self._talks: OrderedDict[str, Talk] = OrderedDict()
        self._num_replies = 0

    def begin(self, arms: list[str], system_prompt: str | None) -> Talk:
        """Begin a conversation.

        Args:
            arms: One or two names.
            system_prompt: For all of them; None for each one's own.

        Raises:
            UserError: If there is no such arm, or the prompt is too long.
        """
        if not 1 <= len(arms) <= 2 or any(arm not in self.prompts for arm in arms):
            raise UserError(f"Choose one arm or two of: {', '.join(self.prompts)}.")
        prompt = None if system_prompt is None else _checked(system_prompt, "system prompt")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        sides = []
        for arm in arms:
            own = self.prompts[arm] if prompt is None else prompt
            sides.append(Side(arm, with_system_prompt([], own)))
        talk = Talk(secrets.token_urlsafe(24), name, prompt or "", sides)
        self._talks[talk.key] = talk
        while len(self._talks) > self.max_talks:
            _, oldest = self._talks.popitem(last=False)
            _stop(oldest)
        return talk

    def get(self, key: str) -> Talk:
        """Return a conversation.

        Raises:
            UserError: If there is none with this key.
        """
        if key not in self._talks:
            raise UserError("This conversation is not kept any more; begin a new one.", 404)
        self._talks.move_to_end(key)
        return self._talks[key]

    async def say(self, key: str, text: str, turn: int) -> None:
        """Put a user message into a conversation, in place of its `turn`th and all that follows.

        Raises:
            UserError: If the text is empty or too long, or there is no such turn.
        """
        talk = self.get(key)
        text = _checked(text, "message")
        if not text.strip():
            raise UserError("Write something first.")
        await self.stop(key)
        for side in talk.sides:
            places = [i for i, m in enumerate(side.messages) if m["role"] == "user"]
            if not 0 <= turn <= len(places) or turn >= MAX_TURNS:
                raise UserError(f"A conversation has at most {MAX_TURNS} turns, one after another.")
            if turn < len(places):
                del side.messages[places[turn] :]
            del side.replies[sum(m["role"] == "assistant" for m in side.messages) :]
            side.messages.append({"role": "user", "content": text})
        self._save(talk)

    def write(self, key: str, side_idx: int) -> Writing:
        """Let an arm answer the last user message, anew if it has done so.

        What is stopped in the middle stays as far as it was written. A former reply stays until
        there is another.

        Raises:
            UserError: If there is nothing to answer, or too much is under way.
        """
        talk = self.get(key)
        if not 0 <= side_idx < len(talk.sides):
            raise UserError("There is no such side.")
        side = talk.sides[side_idx]
        if all(message["role"] != "user" for message in side.messages):
            raise UserError("There is nothing to answer.")
        if self._num_replies >= self.max_replies:
            raise UserError(_BUSY, 503)
        self._num_replies += 1
        task = (writing := Writing(partial(self._write, talk, side))).task
        talk.tasks.add(task)
        task.add_done_callback(partial(self._end, talk))
        return writing

    def _end(self, talk: Talk, task: "asyncio.Task[ReplyFacts]") -> None:
        self._num_replies -= 1
        talk.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever watches

    async def _write(self, talk: Talk, side: Side, writing: Writing) -> ReplyFacts:
        side.num_tries += 1
        seed = derive_seed(talk.name, side.arm, side.num_tries)
        started = time.perf_counter()
        before = list(side.messages)
        is_again = before[-1]["role"] == "assistant"
        try:
            messages = before[:-1] if is_again else before
            reply = await self.desk.reply(side.arm, messages, seed, writing.show)
        except asyncio.CancelledError:
            if not writing.so_far.text:
                raise
            reply = replace(writing.so_far, finish_reason="stopped")
        except Exception as error:  # of a model or its server: the person may try again
            raise _explain(error) from error
        if side.messages != before:  # it was answered twice at once
            raise asyncio.CancelledError
        if is_again:
            side.messages.pop()
            side.replies.pop()
        text = to_valid_text(reply.text)
        side.messages.append({"role": "assistant", "content": text})
        side.replies.append(
            {
                "text": text,
                "tokens": reply.completion_tokens,
                "seconds": round(time.perf_counter() - started, 1),
                "finish_reason": reply.finish_reason,
                "reasoning": to_valid_text(reply.reasoning),
            }
        )
        self._save(talk)
        return side.replies[-1]

    async def stop(self, key: str) -> None:
        """Stop what is being written."""
        tasks = _stop(self.get(key))
        if tasks:
            await asyncio.wait(tasks)

    def _save(self, talk: Talk) -> None:
        """Write a conversation's file, a line a side."""
        lines = [json_line(to_record(talk, side)) for side in talk.sides]
        write_text(self.folder / f"{talk.name}.jsonl", "".join(lines))


def _stop(talk: Talk) -> list["asyncio.Task[ReplyFacts]"]:
    tasks = list(talk.tasks)
    for task in tasks:
        task.cancel()
    return tasks


def _checked(text: str, what: str) -> str:
    if len(text) > MAX_LETTERS:
        raise UserError(f"A {what} has at most {MAX_LETTERS:,} letters; this has {len(text):,}.")
    return to_valid_text(text)


def _explain(error: BaseException) -> UserError:
    if isinstance(error, SimulationError):
        return UserError(f"The model did not answer: {error}", 502)
    return UserError(f"The model failed ({type(error).__name__}: {error}).", 502)


def to_record(talk: Talk, side: Side) -> Record:
    """Return one side as a transcript has it."""
    users = [m["content"] for m in side.messages if m["role"] == "user"]
    infos = [
        ReplyInfo(str(r["finish_reason"]), int(r["tokens"]), str(r["reasoning"]))
        for r in side.replies
    ]
    seconds = sum(float(reply["seconds"]) for reply in side.replies)
    usage = {"replies": len(infos), "completion_tokens": sum(i.completion_tokens for i in infos)}
    result = RolloutResult(
        side.messages,
        [UserTurnResult(text) for text in users],
        TerminationReason.MAX_TURNS,
        {"prompt_tokens": 0, **usage},
        {"assistant_s": round(seconds, 3), "user_s": 0.0},
        replies=infos,
    )
    return Record(f"chat {talk.name}", 0, result, {}, "", side.arm, "person", "")


def json_line(record: Record) -> str:
    """Return a record as a line of a JSON Lines file."""
    return json.dumps(record.to_json(), ensure_ascii=False) + "\n"
