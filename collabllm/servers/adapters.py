"""LoRA adapters that vLLM servers load while they run, and load again after a restart."""

import hashlib
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

import httpx2

from collabllm.errors import ServerError
from collabllm.servers.connection import Connection, describe_failure
from collabllm.servers.failures import StatusError

logger = logging.getLogger(__name__)

_AGAIN_TIMEOUT_S = 300.0


class ServedAdapters:
    """The adapters of some servers, by the name under which these offer them.

    `revisions` tells adapters of one name apart in a cache of answers.
    """

    def __init__(self) -> None:
        self.revisions: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    async def load(
        self, servers: Sequence[Connection], name: str, path: str, timeout_s: float
    ) -> None:
        """Load an adapter into each server; one that is there under this name gives way.

        Raises:
            ServerError: If a server refuses, or none answers; one that comes back is told later.
        """
        silent = []
        for server in servers:
            try:
                await self._load(server, name, path, timeout_s)
            except StatusError as error:
                raise ServerError(
                    f"The server did not load the adapter ({error.label}). vLLM needs "
                    "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
                ) from None
            except (httpx2.HTTPError, TimeoutError) as error:
                failure = describe_failure(error, timeout_s)
                silent.append(ServerError(f"{server.address}: {failure}."))
        if len(silent) == len(servers):
            raise silent[0]
        for lack in silent:
            logger.warning("The adapter is not loaded everywhere: %s", lack)
        self._paths[name], self.revisions[name] = path, adapter_revision(path)

    async def _load(self, server: Connection, name: str, path: str, timeout_s: float) -> None:
        adapter = {"lora_name": name, "lora_path": path}
        try:
            await server.post("/load_lora_adapter", adapter, timeout_s)
        except StatusError as error:
            if "already been loaded" not in error.message:
                raise
            if name.endswith(adapter_revision(path)):
                return  # by its content, as `unique_name` makes it
            await server.post("/unload_lora_adapter", {"lora_name": name}, timeout_s)
            await server.post("/load_lora_adapter", adapter, timeout_s)

    async def restore(self, server: Connection, name: str, error: StatusError) -> bool:
        """Load an adapter anew where the server does not know it any more, for it was restarted.

        Returns:
            Whether another try of the request may succeed.
        """
        if error.status != 404 or name not in self._paths:
            return False
        logger.warning("%s has lost the adapter %s; loading it again.", server.address, name)
        adapter = {"lora_name": name, "lora_path": self._paths[name]}
        try:
            await server.post("/load_lora_adapter", adapter, _AGAIN_TIMEOUT_S)
        except StatusError as again:
            return again.is_passing or "already been loaded" in again.message
        except (httpx2.HTTPError, TimeoutError):
            pass  # the request itself will tell
        return True


def unique_name(path: str) -> str:
    """Name an adapter by its folder and its content, so that no two have one name."""
    return f"{Path(path).name}-{adapter_revision(path)}"


def adapter_revision(path: str) -> str:
    """Return a hash of an adapter's weights and config; a new one each time where unreadable."""
    digest = hashlib.sha256()
    try:
        files = sorted(Path(path).glob("adapter_*"))
        for file in files:
            with file.open("rb") as content:
                digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    except OSError:
        files = []
    return digest.hexdigest()[:16] if files else uuid.uuid4().hex
