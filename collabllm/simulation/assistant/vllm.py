"""An assistant on GPUs: starts a vLLM server of its own, and stops it at the end."""

import shlex
from collections.abc import Sequence
from typing import Any

from collabllm.hub import BUNDLED_MODEL
from collabllm.servers.client import OpenAIClient
from collabllm.servers.process import ServerProcess, free_port
from collabllm.simulation.assistant.openai import OpenAIAssistant


class VllmAssistant(OpenAIAssistant):
    """Serves a model with vLLM, which has an environment of its own, and answers through it.

    Args:
        model_path: Hub id, folder, or `smollm2-135m-instruct` for the bundled model.
        lora_path: A LoRA adapter to load; `load_lora` loads others later.
        command: Starts the server; `--model`, `--served-model-name`, `--host`, `--port` and
            `--enable-lora` are added.
            `uvx vllm serve` needs nothing installed; a container works, too, where it shares this
            machine's network.
        options: Further words for the command, such as `--data-parallel-size 2`.
        max_lora_rank: Largest rank of an adapter, unless `command` or `options` say it.
        start_timeout_s: Seconds until the server has to answer.
        client_options: As in `OpenAIClient`, such as `ledger` and `max_concurrency`.
        **settings: As in `OpenAIAssistant`.

    Raises:
        ServerError: If the server ends or does not answer in time, with the end of its log.
    """

    def __init__(
        self,
        model_path: str,
        lora_path: str | None = None,
        *,
        command: str | Sequence[str] = "vllm serve",
        options: Sequence[str] = (),
        max_lora_rank: int = 64,
        start_timeout_s: float = 900.0,
        client_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        port = free_port()
        words += ["--model", _for_vllm(model_path), "--served-model-name", model_path]
        words += ["--host", "127.0.0.1", "--port", str(port)]
        words += ["--enable-lora", *options]
        if not any(word.startswith("--max-lora-rank") for word in words):
            words += ["--max-lora-rank", str(max_lora_rank)]
        self.server = ServerProcess(
            words,
            f"http://127.0.0.1:{port}",
            start_timeout_s,
            {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
        )
        client = OpenAIClient(
            f"{self.server.url}/v1", "none", check=self.server.check, **(client_options or {})
        )
        client.ledger.add_prices({model_path: (0.0, 0.0)})  # a server of our own
        super().__init__(model_path, client=client, **settings)
        if lora_path:
            try:
                self.use_adapter(lora_path)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Stop the server."""
        self.server.stop()

    def __enter__(self) -> "VllmAssistant":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _for_vllm(model_path: str) -> str:
    """Return the folder of the bundled model; others vLLM finds by itself, maybe elsewhere."""
    if model_path != BUNDLED_MODEL:
        return model_path
    from collabllm.models import resolve_model_path  # torch loads here

    return resolve_model_path(model_path)
