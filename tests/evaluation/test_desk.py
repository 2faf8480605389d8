"""Local arms take turns with one copy of the weights; nobody is answered by another arm."""

import asyncio
from contextlib import contextmanager

import pytest

from collabllm.evaluation.desk import ArmDesk
from tests.pages import Echo


class Shelf:
    """One copy of weights: at most one arm holds it, and it remembers who did."""

    def __init__(self):
        self.held_by = None
        self.history = []

    def seat(self, name):
        @contextmanager
        def sit():
            assert self.held_by is None
            self.held_by = name
            self.history.append(name)
            try:
                yield Echo(name)
            finally:
                self.held_by = None

        return sit


def ask(desk, *names):
    async def all_at_once():
        said = [{"role": "user", "content": "hi"}]
        jobs = [asyncio.create_task(desk.reply(name, said, 0)) for name in names]
        return [reply.text for reply in await asyncio.gather(*jobs)]

    return asyncio.run(all_at_once())


def test_requests_of_one_arm_share_a_turn_and_all_get_their_own_arm():
    shelf = Shelf()
    desk = ArmDesk({name: shelf.seat(name) for name in "ab"}, {"far": Echo("far")})

    texts = ask(desk, "a", "a", "b", "a", "b", "far")

    assert texts == [f"{name} says: hi" for name in ("a", "a", "b", "a", "b", "far")]
    assert shelf.history == ["a", "b", "a", "b"]  # who comes later waits behind another arm
    desk.close()
    assert shelf.held_by is None


def test_an_arm_that_does_not_load_does_not_block_the_others():
    shelf = Shelf()

    @contextmanager
    def broken():
        raise MemoryError("no room")
        yield

    desk = ArmDesk({"bad": broken, "good": shelf.seat("good")}, {})

    with pytest.raises(MemoryError):
        ask(desk, "bad")
    assert ask(desk, "good") == ["good says: hi"]


def test_a_caller_that_gives_up_leaves_the_queue():
    shelf = Shelf()
    desk = ArmDesk({name: shelf.seat(name) for name in "ab"}, {})

    async def give_up():
        said = [{"role": "user", "content": "hi"}]
        async with desk._turn("a"):
            waiting = asyncio.create_task(desk.reply("b", said, 0))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
            return (await desk.reply("a", said, 0)).text

    assert asyncio.run(give_up()) == "a says: hi"
