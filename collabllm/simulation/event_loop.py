"""One background event loop for all simulations, so that plain calls work anywhere."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
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


async def run_blocking(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking function in a thread."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), function, *args)


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MAX_BLOCKING_CALLS, thread_name_prefix="collabllm-blocking")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
