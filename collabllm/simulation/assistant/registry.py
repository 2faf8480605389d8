"""Kinds of assistants by name: `--assistant` chooses one.

A kind of your own is a function with this decorator:

    @assistant_kind("parrot")
    def parrot(settings: AssistantSettings, session: Session) -> Assistant: ...
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from collabllm.simulation.assistant.base import Assistant
from collabllm.simulation.assistant.openai import OpenAIAssistant
from collabllm.simulation.assistant.ray import RayAssistant
from collabllm.simulation.assistant.vllm import VllmAssistant

if TYPE_CHECKING:
    from collabllm.simulation.assistant.local import LocalAssistant
    from collabllm.simulation.assistant.settings import (
        AssistantSettings,
        EngineSettings,
        ModelSettings,
    )
    from collabllm.simulation.session import Session

Made = TypeVar("Made", "LocalAssistant", RayAssistant)
Builder = Callable[["AssistantSettings", "Session"], Assistant]

_KINDS: dict[str, Builder] = {}


def assistant_kind(name: str) -> Callable[[Builder], Builder]:
    """Register a function that makes an assistant from settings, under a name."""

    def register(build: Builder) -> Builder:
        _KINDS[name] = build
        return build

    return register


def known_assistant_kinds() -> list[str]:
    """Return the names of all kinds."""
    return sorted(_KINDS)


def build_assistant(settings: "AssistantSettings", session: "Session") -> Assistant:
    """Make the assistant that the settings name; what must be closed goes to the session's stack.

    Raises:
        ValueError: If the settings do not fit together.
    """
    return _KINDS[settings.assistant_kind](settings, session)


@assistant_kind("local")
def local_assistant(settings: "AssistantSettings", session: "Session") -> Assistant:
    """Load a model on this machine."""
    from collabllm.simulation.assistant.local import LocalAssistant  # torch loads here

    return session.stack.enter_context(_load(LocalAssistant, settings, settings.lora_path))


@assistant_kind("ray")
def ray_assistant(settings: "AssistantSettings", session: "Session") -> Assistant:
    """Load a model on the machines of a Ray cluster."""
    return session.stack.enter_context(load_on_ray(settings, settings.lora_path))


def load_on_ray(settings: "EngineSettings", lora_path: str | None) -> RayAssistant:
    """Load a model with an adapter on the machines of the cluster that the settings name."""
    on_ray = partial(RayAssistant, address=settings.ray or "auto", num_workers=settings.ray_workers)
    return _load(on_ray, settings, lora_path)


def _load(make: Callable[..., Made], settings: "ModelSettings", lora_path: str | None) -> Made:
    if settings.extra_body:
        raise ValueError(
            "--extra_body is for an assistant behind a server; --assistant_model is missing."
        )
    try:
        return make(
            settings.hf_model_path, lora_path, settings.load_in_4bit, **local_options(settings)
        )
    except (OSError, ValueError) as error:
        adapter = f" with --lora_path {lora_path}" if lora_path else ""
        raise ValueError(
            f"--hf_model_path {settings.hf_model_path}{adapter} cannot be loaded: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def local_options(settings: "ModelSettings") -> dict[str, Any]:
    """Return how a local assistant generates, of the settings."""
    return {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "do_sample": settings.temperature > 0,
        "top_p": 1.0 if settings.top_p is None else settings.top_p,
        "no_repeat_ngram_size": settings.no_repeat_ngram_size,
        "enable_thinking": settings.enable_thinking,
        "reasoning_effort": settings.reasoning_effort,
        "memory_share": settings.memory_share,
    }


@assistant_kind("openai")
def openai_assistant(settings: "AssistantSettings", session: "Session") -> Assistant:
    """Ask a server."""
    if not settings.assistant_model:
        raise ValueError("--assistant_base_url needs --assistant_model, the server's name of it.")
    client = session.client(settings.assistant_base_url)
    assistant = OpenAIAssistant(settings.assistant_model, client=client, **server_options(settings))
    if settings.lora_path:
        assistant.use_adapter(settings.lora_path)
    return assistant


def server_options(settings: "ModelSettings") -> dict[str, Any]:
    """Return what an assistant behind a server is made with, of the settings.

    Raises:
        ValueError: If they hold what only a local assistant can do.
    """
    if settings.no_repeat_ngram_size:
        raise ValueError(
            "--no_repeat_ngram_size is for a local assistant; no server bans runs of tokens. "
            'Leave it out, or ask for what the server has: --extra_body \'{"repetition_penalty": '
            "1.1}'."
        )
    return {
        "temperature": settings.temperature,
        "max_tokens": settings.max_new_tokens,
        "tokenizer_path": settings.tokenizer_path,
        "top_p": settings.top_p,
        "reasoning_effort": settings.reasoning_effort,
        "enable_thinking": settings.enable_thinking,
        "extra_body": settings.extra_body,
        "seeds": settings.seeds,
    }


@assistant_kind("vllm")
def vllm_assistant(settings: "AssistantSettings", session: "Session") -> Assistant:
    """Start a vLLM server of our own."""
    return start_vllm(settings, session, settings.lora_path)


def start_vllm(
    settings: "EngineSettings", session: "Session", lora_path: str | None = None
) -> VllmAssistant:
    """Start a vLLM server that ends with the session."""
    options = server_options(settings)
    options["tokenizer_path"] = settings.tokenizer_path or settings.hf_model_path
    return session.stack.enter_context(
        VllmAssistant(
            settings.hf_model_path,
            lora_path,
            command=settings.vllm_command,
            client_options=session.client_options(),
            **options,
        )
    )
