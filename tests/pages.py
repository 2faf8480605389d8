"""A page's server in this process, and a client that asks as the page's own script does."""

import asyncio
from contextlib import contextmanager

import httpx2 as httpx

from collabllm.event_loop import get_loop
from collabllm.simulation.assistant import Assistant, AssistantReply
from collabllm.web import Guard, address_of, build_server, find_port


@contextmanager
def running(app, host="127.0.0.1", token=None):
    """Serve an application behind its guard; gives its address."""
    with find_port(host, 0) as listener:
        server = build_server(Guard(app, host, (), token))
        future = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), get_loop())
        try:
            yield address_of(listener, "").rstrip("/")
        finally:
            server.should_exit = True
            future.result(10)


def client_of(address, **more):
    """Make a client whose requests look like those of the page."""
    return httpx.Client(base_url=address, headers={"Origin": address}, timeout=20, **more)


class Echo(Assistant):
    """Answers with its name and the last message; waits while `held`, fails when told to."""

    def __init__(self, name):
        self.name = name
        self.held = asyncio.Event()
        self.held.set()
        self.asked = []
        self.fails = None
        self.half = False  # of a reply is shown before it waits

    async def agenerate(self, messages, *, seed=None):
        return await self.astream(messages, lambda reply: None, seed=seed)

    async def astream(self, messages, on_reply, *, seed=None):
        self.asked.append((messages, seed))
        if self.half:
            on_reply(AssistantReply(f"{self.name} says", 3, 2, ""))
        await self.held.wait()
        if self.fails:
            raise self.fails
        return AssistantReply(f"{self.name} says: {messages[-1]['content']}", 3, 5)
