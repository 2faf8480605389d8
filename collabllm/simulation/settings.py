"""Settings of simulated conversations: parts that several stages share, and `simulate_chats`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from collabllm.hub import BUNDLED_MODEL
from collabllm.prompts import DEFAULT_SYSTEM_PROMPT
from collabllm.servers.client import Address
from collabllm.settings import Settings, setting
from collabllm.simulation.assistant.registry import known_assistant_kinds
from collabllm.simulation.shards import ShardSettings
from collabllm.simulation.user_models.registry import UserSpec, to_user_spec
from collabllm.tasks.settings import TaskSettings

TRANSCRIPTS_FILE = "transcripts.jsonl"


@dataclass(kw_only=True)
class ServedSettings(Settings):
    """Settings of which some name models behind servers."""

    def __post_init__(self) -> None:
        """Take one address for one; refuse an address given twice."""
        super().__post_init__()
        for name in (field.name for field in fields(self)):
            urls = getattr(self, name)
            if not name.endswith("_base_url") or not isinstance(urls, list | tuple):
                continue
            if not urls or len(set(urls)) < len(urls):
                raise ValueError(f"--{name} needs one address or several different ones: {urls}.")
            setattr(self, name, list(urls) if len(urls) > 1 else urls[0])

    def models_behind_servers(self) -> list[tuple[str, Address, str]]:
        """Return model, address and role of each, for `Session.preflight`; parts add theirs."""
        return []


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
        True, "assistant behind a server: send each reply's seed; off where that slows the server"
    )
    system_prompt: str = setting(
        DEFAULT_SYSTEM_PROMPT, 'system message of the assistant; "" for none', metavar="TEXT"
    )


@dataclass(kw_only=True)
class ClusterSettings(ModelSettings):
    """The local model, on this machine or on many."""

    _argument_group_name = "the cluster"

    ray: str | None = setting(
        None,
        "spread the local model over a Ray cluster (extra collabllm[ray]): its HOST:PORT, or auto "
        "for the one that this machine is in, or else one of this machine",
        metavar="auto|ADDRESS",
        decides=False,
    )
    ray_workers: int | None = setting(
        None,
        "with --ray: copies of the model; by default one a GPU, or one a node where there is none",
        least=1,
        decides=False,
    )


@dataclass(kw_only=True)
class AssistantSettings(ClusterSettings):
    """One assistant, local or behind a server."""

    _argument_group_name = "the assistant"

    assistant: str = setting(
        "auto",
        "local, ray (local on many machines), openai (behind a server that runs), vllm (starts "
        "one); auto: local, ray where --ray is given, openai where --assistant_model is",
        metavar="KIND",
    )
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
    vllm_command: str = setting(
        "vllm serve", "vllm assistant: the command that starts the server", metavar="COMMAND"
    )

    def __post_init__(self) -> None:
        """Refuse a kind that is not known."""
        super().__post_init__()
        if self.assistant != "auto" and self.assistant not in known_assistant_kinds():
            known = ", ".join(["auto", *known_assistant_kinds()])
            raise ValueError(f"assistant must be one of {known}, got {self.assistant!r}.")
        if self.ray and self.assistant_kind != "ray":
            raise ValueError(
                f"--ray spreads a local model; the assistant is {self.assistant_kind}, by "
                "--assistant, --assistant_model or --assistant_base_url."
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
        if self.assistant != "auto":
            return self.assistant
        if self.assistant_base_url or self.assistant_model:
            return "openai"
        return "ray" if self.ray else "local"


@dataclass(kw_only=True)
class UserSettings(ServedSettings):
    """Who plays the user."""

    _argument_group_name = "the simulated user"

    user: UserSpec | dict[str, Any] | str = setting(
        "sharded",
        "sharded: rules that tell a fact when asked for it; openai: a language model that plays "
        "the user in JSON; native: a model trained to be the user, such as UserLM-8b; or options "
        "of one, such as kind=sharded,patience=1,matcher=semantic",
        metavar="KIND|key=value,...",
    )
    user_model: str = setting("gpt-4o-mini", "model that plays the user", metavar="NAME")
    user_base_url: list[str] | str | None = setting(
        None, "address of the user's server, or of several", metavar="URL", decides=False
    )
    user_max_tokens: int = setting(1024, "most tokens of the user model's answer", least=1)
    user_temperature: float = setting(1.0, "sampling temperature of the user model", least=0)
    num_traits: int = setting(
        0, "openai user: random persona traits of each simulated user", least=0
    )

    def __post_init__(self) -> None:
        """Read the user, so that a wrong one is an error at once."""
        super().__post_init__()
        self.to_user_spec()

    def models_behind_servers(self) -> list[tuple[str, Address, str]]:
        """Add the user's."""
        return [*super().models_behind_servers(), *self.to_user_spec().models_behind_servers()]

    def to_user_spec(self) -> UserSpec:
        """Return the user with its options.

        Raises:
            ValueError: If the kind or an option is not known.
        """
        return to_user_spec(
            self.user,
            model=self.user_model,
            base_url=self.user_base_url,
            max_tokens=self.user_max_tokens,
            temperature=self.user_temperature,
            num_traits=self.num_traits,
        )


@dataclass(kw_only=True)
class RunSettings(Settings):
    """Concurrency, seeds, costs, and the cache of server answers."""

    _argument_group_name = "the run"

    concurrency: int = setting(16, "most conversations at once", least=1, decides=False)
    seed: int = setting(0, "seed of the whole run")
    max_cost: float | None = setting(
        None, "stop after this many dollars; --resume goes on", least=0, decides=False
    )
    prices: dict[str, tuple[float, float]] | None = setting(
        None, 'dollars for a million tokens: {"model": [prompt, completion]}', decides=False
    )
    tokens_per_minute: int | None = setting(
        None, "rate limit of each server", least=1, decides=False
    )
    timeout_s: float = setting(
        120.0, "seconds until a request to a server counts as failed", least=0.1, decides=False
    )
    max_retries: int = setting(
        14, "tries after a failed request; 14 outlast a server's restart", least=0, decides=False
    )
    cache: str | None = setting(
        None,
        "SQLite file: answers in it are taken, new ones are added",
        metavar="FILE",
        decides=False,
    )
    replay: str | None = setting(
        None,
        "SQLite file of --cache: all answers come from it, no server is asked",
        metavar="FILE",
        decides=False,
    )

    def __post_init__(self) -> None:
        """Refuse a cache that is written and replayed at once."""
        super().__post_init__()
        if self.cache and self.replay:
            raise ValueError("--cache and --replay exclude each other; give one file to one.")
        for model, price in (self.prices or {}).items():
            pair = isinstance(price, list | tuple) and len(price) == 2
            if not pair or not all(isinstance(dollars, int | float) for dollars in price):
                raise ValueError(
                    f"--prices: {model} needs dollars for a million tokens, [prompt, completion], "
                    f"got {price!r}."
                )


@dataclass(kw_only=True)
class SimulationSettings(ShardSettings, RunSettings, TaskSettings, UserSettings, AssistantSettings):
    """All that `simulate_chats` does."""

    _argument_group_name = "the conversations"

    num_rollouts: int = setting(1, "conversations of each task", least=1, decides=False)
    max_turns: int = setting(4, "most user messages of a conversation", least=0)
    token_budget: int | None = setting(None, "most assistant tokens of a conversation", least=1)
    fail_on_error: float = setting(
        0.1, "share of unexpected errors that stops the run", least=0, most=1, decides=False
    )
    output_dir: str = setting(
        "outputs/simulation",
        f"folder for {TRANSCRIPTS_FILE}; a name that ends in .jsonl is the file itself",
        metavar="DIR",
        aliases=("--output",),
        decides=False,
    )
    resume: bool = setting(False, "go on with the transcripts in --output_dir", decides=False)
    interactive: bool = setting(False, "talk yourself, about the first task", decides=False)

    @property
    def transcripts(self) -> Path:
        """The file of transcripts."""
        path = Path(self.output_dir)
        return path if path.suffix == ".jsonl" else path / TRANSCRIPTS_FILE

    @property
    def header(self) -> Path:
        """The file beside the transcripts that says what made them."""
        return self.transcripts.with_suffix(".run.json")
