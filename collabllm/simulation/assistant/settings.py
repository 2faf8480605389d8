"""Settings of who answers: the model, what runs it, and servers."""

from dataclasses import dataclass
from typing import Any

from collabllm.hub import BUNDLED_MODEL
from collabllm.prompts import DEFAULT_SYSTEM_PROMPT
from collabllm.servers.client import Address
from collabllm.servers.settings import ServedSettings
from collabllm.settings import setting
from collabllm.simulation.assistant.registry import known_assistant_kinds

_VLLM = "vllm serve"


@dataclass(kw_only=True)
class ModelSettings(ServedSettings):
    """The local model, and how replies are generated, here or behind a server."""

    _argument_group_name = "the assistant's model"

    hf_model_path: str = setting(
        BUNDLED_MODEL, "local assistant: Hub id, folder, or the bundled model", metavar="MODEL"
    )
    load_in_4bit: bool = setting(
        False, "local assistant: quantize the model to 4 bit (NF4)", aliases=("--use_4bit",)
    )
    memory_share: float | None = setting(
        None,
        "local assistant on a GPU: share of its free memory for keys and values",
        least=0,
        most=1,
        decides=False,
    )
    tokenizer_path: str | None = setting(
        None, "assistant behind a server: its tokenizer, for exact token counts", metavar="MODEL"
    )
    max_new_tokens: int = setting(256, "most tokens of a reply", least=1)
    temperature: float = setting(
        0.7, "sampling temperature of the assistant; 0 always takes the likeliest token", least=0
    )
    top_p: float | None = setting(
        None,
        "sample from the likeliest tokens with this much probability; the engine's own by default",
        least=0,
        most=1,
    )
    no_repeat_ngram_size: int = setting(
        0,
        "local assistant: never write a run of this many tokens that it wrote before in the "
        "conversation; 0 lets it",
        least=0,
    )
    reasoning_effort: str | None = setting(
        None, "reasoning model: how much it thinks (low, medium, high, ...)", metavar="EFFORT"
    )
    enable_thinking: bool | None = setting(
        None, "model that can do both: think or not, by its chat template", metavar="true|false"
    )
    extra_body: dict[str, Any] | None = setting(
        None, 'assistant behind a server: more fields of each request: {"top_k": 20}'
    )
    seeds: bool = setting(
        True, "assistant behind a server: send each reply's seed; false where that slows the server"
    )
    system_prompt: str = setting(
        DEFAULT_SYSTEM_PROMPT, 'system message of the assistant; "" for none', metavar="TEXT"
    )


@dataclass(kw_only=True)
class EngineSettings(ModelSettings):
    """What runs the model: this machine, many, or a vLLM server that is started for it."""

    _argument_group_name = "the engine"

    assistant: str = setting(
        "auto",
        "local, ray (local on many machines), vllm (starts a server), openai (behind a server that "
        "runs); auto: local, ray where --ray is given, openai where --assistant_model is",
        metavar="KIND",
        aliases=("--engine",),
    )
    vllm_command: str = setting(
        _VLLM, "with vllm: the command that starts the server", metavar="COMMAND"
    )
    ray: str | None = setting(
        None,
        "spread the local model over a Ray cluster (extra collabllm[ray]): its HOST:PORT, or auto "
        "for the one that this machine is in, or else one of this machine",
        metavar="auto|ADDRESS",
        decides=False,
    )
    ray_workers: int | None = setting(
        None,
        "with ray: copies of the model; by default one a GPU, or one a node where there is none",
        least=1,
        decides=False,
    )

    def __post_init__(self) -> None:
        """Refuse a kind that is not known, and what does not go with the kind."""
        super().__post_init__()
        kind = self.assistant_kind
        if self.assistant != "auto" and kind not in known_assistant_kinds():
            known = ", ".join(["auto", *known_assistant_kinds()])
            raise ValueError(f"assistant must be one of {known}, got {kind!r}.")
        if self.ray and kind != "ray":
            raise ValueError(
                f"--ray spreads a local model; the assistant is {kind}, by --assistant, "
                "--assistant_model or --assistant_base_url."
            )
        if self.ray_workers and kind != "ray":
            raise ValueError(f"--ray_workers needs --ray; the assistant is {kind}.")
        if self.vllm_command != _VLLM and kind != "vllm":
            raise ValueError(f"--vllm_command needs --assistant vllm; the assistant is {kind}.")
        if self.load_in_4bit and kind == "vllm":
            raise ValueError(
                "--load_in_4bit is for a local model; vLLM quantizes by its own words: "
                "--vllm_command 'vllm serve --quantization bitsandbytes'."
            )

    @property
    def assistant_kind(self) -> str:
        """The kind of assistant, by its name in the registry."""
        if self.assistant != "auto":
            return self.assistant
        return "ray" if self.ray else "local"


@dataclass(kw_only=True)
class AssistantSettings(EngineSettings):
    """One assistant, local or behind a server."""

    _argument_group_name = "the assistant"

    lora_path: str | None = setting(
        None,
        "folder or Hub id of an adapter; a vLLM server is told to load it, from the same path",
        metavar="ADAPTER",
    )
    assistant_base_url: list[str] | str | None = setting(
        None,
        "assistant behind a server: its address; of several servers of one model, all of them",
        metavar="URL",
        decides=False,
    )
    assistant_model: str | None = setting(
        None, "assistant behind a server: the server's name for the model", metavar="NAME"
    )

    def __post_init__(self) -> None:
        """Refuse a server beside the one that is started."""
        super().__post_init__()
        if self.assistant == "vllm" and (self.assistant_base_url or self.assistant_model):
            raise ValueError(
                "--assistant vllm starts a server of its own; for one that runs, leave it out and "
                "give --assistant_base_url and --assistant_model."
            )

    def models_behind_servers(self) -> list[tuple[str, Address, str]]:
        """Add the assistant's."""
        found = super().models_behind_servers()
        if self.assistant_kind == "openai" and self.assistant_model:
            found.append((self.assistant_model, self.assistant_base_url, "assistant"))
        return found

    @property
    def assistant_kind(self) -> str:
        """The kind of assistant, by its name in the registry."""
        is_served = self.assistant_base_url or self.assistant_model
        return "openai" if self.assistant == "auto" and is_served else super().assistant_kind
