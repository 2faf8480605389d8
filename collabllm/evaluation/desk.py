"""Several arms that answer people at once; local ones take turns with one copy of the weights."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Protocol

from collabllm.event_loop import run_blocking
from collabllm.messages import Message
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.assistant import Assistant, AssistantReply
from collabllm.simulation.assistant.base import OnReply


class Seat(Protocol):
    """Where an arm's assistant comes from."""

    def __call__(self) -> AbstractContextManager[Assistant]:
        """Make the assistant ready; a local one loads, or switches its adapter."""


class ArmDesk:
    """Answers for arms by name.

    Requests of one local arm are answered together, as a batch; those of another wait until it has
    the weights. Nobody waits for ever: who comes later than a waiting one waits behind it.

    Args:
        local: Arms that share the weights on this machine.
        remote: Assistants that answer whenever they are asked.
        ledger: Counts what servers are asked; a new one by default.
    """

    def __init__(
        self,
        local: Mapping[str, Seat],
        remote: Mapping[str, Assistant],
        ledger: UsageLedger | None = None,
    ) -> None:
        self._local, self._remote = dict(local), dict(remote)
        self.ledger = ledger or UsageLedger()
        self._changed = asyncio.Condition()
        self._waiting: deque[tuple[object, str]] = deque()
        self._name: str | None = None
        self._num_users = 0
        self._seat: AbstractContextManager[Assistant] | None = None
        self._assistant: Assistant | None = None

    @property
    def names(self) -> list[str]:
        """The arms."""
        return [*self._local, *self._remote]

    async def reply(
        self, name: str, messages: Sequence[Message], seed: int, on_reply: OnReply | None = None
    ) -> AssistantReply:
        """Let an arm answer.

        Args:
            name: Of the arm.
            messages: What it answers.
            seed: For sampling.
            on_reply: Called with the reply as far as it is written, whenever there is more.

        Raises:
            KeyError: If there is no such arm.
            SimulationError: If the model or its server fails.
        """
        if name in self._remote:
            return await _ask(self._remote[name], messages, seed, on_reply)
        async with self._turn(name) as assistant:
            return await _ask(assistant, messages, seed, on_reply)

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[Assistant]:
        ticket = (object(), name)
        async with self._changed:
            self._waiting.append(ticket)
            try:
                await self._changed.wait_for(lambda: self._may_enter(ticket))
                if self._name != name:
                    await self._switch(name)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            self._num_users += 1
        try:
            assert self._assistant is not None
            yield self._assistant
        finally:
            async with self._changed:
                self._num_users -= 1
                self._changed.notify_all()

    def _may_enter(self, ticket: tuple[object, str]) -> bool:
        """Tell whether all who came before want the same arm, and it is there or can come."""
        for other in self._waiting:
            if other is ticket:
                break
            if other[1] != ticket[1]:
                return False
        return self._name == ticket[1] or not self._num_users

    async def _switch(self, name: str) -> None:
        self._name, self._assistant = None, None
        if self._seat is not None:
            seat, self._seat = self._seat, None
            await run_blocking(seat.__exit__, None, None, None)
        seat = self._local[name]()
        self._assistant = await run_blocking(seat.__enter__)
        self._seat, self._name = seat, name

    def close(self) -> None:
        """Free the weights."""
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.__exit__(None, None, None)


async def _ask(
    assistant: Assistant, messages: Sequence[Message], seed: int, on_reply: OnReply | None
) -> AssistantReply:
    if on_reply is None:
        return await assistant.agenerate(messages, seed=seed)
    return await assistant.astream(messages, on_reply, seed=seed)
