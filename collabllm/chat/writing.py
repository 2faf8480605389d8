"""A reply that is being written: what there is of it so far, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from collabllm.simulation.assistant.base import AssistantReply
from collabllm.web import UserError

ReplyFacts = dict[str, float | str]


class Writing:
    """A reply under way, in a task of its own; whoever wants may watch it.

    Args:
        write: Writes the reply, hands `show` what comes, and returns what is known of it.
    """

    def __init__(self, write: Callable[["Writing"], Coroutine[Any, Any, ReplyFacts]]) -> None:
        self.so_far = AssistantReply("")
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(write(self))
        self.task.add_done_callback(lambda _: self._changed.set())

    def show(self, reply: AssistantReply) -> None:
        """Take note of the reply as far as it is written."""
        self.so_far = reply
        self._changed.set()

    async def watch(self) -> AsyncIterator[ReplyFacts]:
        """Yield the text so far whenever there is more of it, and in the end all that is known.

        Raises:
            UserError: If it is stopped before there is anything, or the model fails.
        """
        while not self.task.done():
            await self._changed.wait()
            self._changed.clear()
            if not self.task.done():
                yield {"text": self.so_far.text, "thinks": bool(self.so_far.reasoning)}
        if self.task.cancelled():
            raise UserError("Stopped.", 409)
        yield self.task.result()
