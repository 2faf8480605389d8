"""Settings of simulated conversations: parts that several stages share, and `simulate_chats`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabllm.servers.client import Address
from collabllm.servers.settings import ServedSettings
from collabllm.settings import Settings, read_mapping, setting
from collabllm.simulation.assistant.settings import AssistantSettings
from collabllm.simulation.shards import ShardSettings
from collabllm.simulation.user_models.registry import UserSpec, to_user_spec
from collabllm.tasks.settings import TaskSettings

TRANSCRIPTS_FILE = "transcripts.jsonl"


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
        """Read the user, so that a wrong one is an error at once; its address stands apart."""
        super().__post_init__()
        self.to_user_spec()
        if not isinstance(self.user, UserSpec) and "base_url" in self.user:
            user = read_mapping(self.user, "--user")
            # An address decides nothing, and its password is not for headers.
            self.user_base_url = user.pop("base_url", self.user_base_url)
            self.user = user

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
        None,
        "stop after this many dollars; what has ended is kept, and can be gone on with",
        least=0,
        decides=False,
    )
    prices: dict[str, tuple[float, float]] | None = setting(
        None, 'dollars for a million tokens: {"model": [prompt, completion]}', decides=False
    )
    tokens_per_minute: int | None = setting(
        None, "most tokens a minute of each server", least=1, decides=False
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

    num_told: list[int] = setting(
        [0], "facts told in the openings, the tasks taking turns", metavar="N", least=0
    )
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
