"""A Ray cluster: joined or started, what of it each worker gets, and how its errors read."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from collabllm.errors import CollabLLMError, ServerError

_CONNECT_TIMEOUT_S = 10.0


def import_ray() -> Any:
    """Import Ray when it is first used.

    Raises:
        CollabLLMError: If it is not installed.
    """
    # Workers run in the environment of their node, which is no copy of `uv run` and its folder.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise CollabLLMError(
            "Ray is not installed; it is the extra collabllm[ray]: `uv sync --extra ray`, or "
            "`pip install ray`."
        ) from error
    return ray


@contextlib.contextmanager
def connection(ray: Any, address: str) -> Iterator[None]:
    """Hold a connection to a cluster; where Ray is connected already, that one is used, and stays.

    What is ended is only what was started here: a cluster that was joined goes on.

    Raises:
        ServerError: If there is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    try:
        _connect(ray, address)
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


def _connect(ray: Any, address: str) -> None:
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    place: str | None = address
    if address == "auto":  # found by Ray's own note, which stays when a cluster is killed
        noted = ray._private.utils.read_ray_address()
        place = None if noted and not _why_silent(noted) else "local"
    elif address != "local" and (why := _why_silent(address)):
        raise ServerError(f"There is no Ray cluster at {address}: {why}.")
    ray._private.worker._worker_logs_enabled = False  # else a death prints pages on stdout
    try:
        ray.init(
            place, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
        )
    except Exception as error:  # Ray's own kinds and plain ones, all about the cluster
        raise ServerError(f"Ray at {address} cannot be used: {last_line(error)}") from error


def _why_silent(address: str) -> str:
    """Say why nothing answers at HOST:PORT, where Ray would try for minutes; or nothing."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return "an address is HOST:PORT, or auto"
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return str(error)
    return ""


def divide(nodes: Sequence[dict[str, Any]], num_workers: int | None) -> tuple[int, dict[str, int]]:
    """Return the number of workers, and what each is given: a GPU, or a share of a node's CPUs."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    num_gpus = sum(int(node.get("GPU", 0)) for node in resources)
    if num_gpus:
        return num_workers or num_gpus, {"num_gpus": 1}
    cpus = [int(node["CPU"]) for node in resources if node.get("CPU", 0) >= 1]
    if not cpus:
        raise ServerError("The Ray cluster has neither GPUs nor CPUs to give.")
    number = num_workers or len(cpus)
    per_node = -(-number // len(cpus))
    return number, {"num_cpus": max(1, min(cpus) // per_node)}


def last_line(error: BaseException | None) -> str:
    """Return the line of an error's text that says most: Ray's begin with where they were."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
