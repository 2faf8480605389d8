"""One background event loop for all simulations, so that plain calls work anywhere."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

_MAX_BLOCKING_CALLS = 64


@lru_cache(maxsize=1)
def get_loop() -> asyncio.AbstractEventLoop:
    """Start the loop's thread at the first call, and return the loop."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="collabllm-simulation", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from a script, a notebook's cell, or any thread.

    An interrupt (Ctrl-C) cancels the coroutine.

    Raises:
        RuntimeError: If called on the background loop itself, where it would wait for ever.
    """
    loop = get_loop()
    if _running_loop() is loop:
        coroutine.close()
        raise RuntimeError("Use the async method (await) inside a simulation, not the plain one.")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def stream(
    produce: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]],
) -> Generator[T, None, None]:
    """Run a coroutine on the background loop, and yield what it hands out in the caller's thread.

        background loop:   produce(hand_out) --> (item,) (item,) ... then its error, and None
        caller's thread:   items.get() <-- yields each item, raises the error, ends at None

    Items travel in tuples of one, so that an item may be None or an exception itself. Closing the
    iterator, or Ctrl-C, cancels the coroutine; its error is raised here.

    Args:
        produce: Gets the function to hand an item out with.
    """
    items: queue.Queue[tuple[T] | BaseException | None] = queue.Queue()

    async def work() -> None:
        try:
            await produce(lambda item: items.put((item,)))
        except BaseExceptionGroup as failures:
            items.put(_first_error(failures))
        except Exception as error:
            items.put(error)
        finally:
            items.put(None)

    future = asyncio.run_coroutine_threadsafe(work(), get_loop())
    try:
        while (item := items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        future.cancel()


def _first_error(failures: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def run_blocking(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking function in a thread.

    Raises:
        RuntimeError: In place of StopIteration, which no future can carry: its caller would hang.
    """

    def call() -> T:
        try:
            return function(*args)
        except StopIteration as error:
            raise RuntimeError("StopIteration: an iterator had no more values.") from error

    return await asyncio.get_running_loop().run_in_executor(_threads(), call)


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MAX_BLOCKING_CALLS, thread_name_prefix="collabllm-blocking")


def _forget() -> None:
    """Let a forked child start its own: it has inherited the loop, but not the thread."""
    get_loop.cache_clear()
    _threads.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
