"""Settings of `build_dataset` and `correct_questions`."""

from dataclasses import dataclass
from pathlib import Path

from collabllm.data_engine.turn_groups import GrowthSettings
from collabllm.rewards.scoring import DEFAULT_WEIGHTS, RewardSettings
from collabllm.rewards.settings import JudgeSettings
from collabllm.settings import setting
from collabllm.simulation.assistant.settings import AssistantSettings
from collabllm.simulation.settings import TRANSCRIPTS_FILE, RunSettings, UserSettings
from collabllm.simulation.shards import ShardSettings
from collabllm.tasks.settings import TaskSettings


@dataclass(kw_only=True)
class BuildSettings(
    ShardSettings, JudgeSettings, RunSettings, TaskSettings, UserSettings, AssistantSettings
):
    """All that `build_dataset` does."""

    _argument_group_name = "the dataset"

    num_told: list[int] = setting(
        [0], "facts told in the openings, the tasks taking turns", metavar="N", least=0
    )
    num_candidates: int = setting(3, "candidate replies of each turn", least=1)
    proactive_share: float = setting(
        0.5, "share of the candidates that is written under the proactive prompt", least=0, most=1
    )
    keep_cut_replies: bool = setting(
        False,
        "let replies that --max_new_tokens cut be candidates, too, up to their last whole sentence",
    )
    max_turns: int = setting(4, "most turns of a conversation", least=1)
    window: int = setting(2, "user messages simulated after a reply; 0 for none", least=0)
    num_samples: int = setting(3, "futures of each reply", least=1)
    sample_budget: int = setting(
        0,
        "further futures of a turn, for its best and worst reply until their order is sure",
        least=0,
    )
    weights: dict[str, float] = setting(
        dict(DEFAULT_WEIGHTS),
        'metrics and their weights: {"document->bleu": 1, "interactivity": 1}',
    )
    token_penalty: float = setting(
        0.0, "penalty per assistant token, capped at 1 in total", least=0
    )
    output_dir: str = setting(
        "outputs/dataset", "folder of the dataset", metavar="DIR", aliases=("--output",),
        decides=False,
    )  # fmt: skip
    resume: bool = setting(False, "go on with the build in --output_dir", decides=False)
    push_to_hub: str | None = setting(
        None,
        "private dataset repository to push to at the end, or false",
        metavar="REPO",
        decides=False,
    )
    plan: bool = setting(False, "print calls, tokens, cost and time, and stop", decides=False)
    lint: bool = setting(
        False, "look for weaknesses of the reward on 10 tasks, and stop", decides=False
    )

    def __post_init__(self) -> None:
        """Refuse weights that are no numbers, and a word that names no repository."""
        super().__post_init__()
        word = str(self.push_to_hub).strip().lower()
        if word in ("", "none", "false"):
            self.push_to_hub = None
        elif word in ("true", "auto"):
            raise ValueError(
                f"--push_to_hub {word}: give the name of the dataset's repository, such as "
                "user/conversations, or false."
            )
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ValueError(f"--weights: {name} needs a number, got {weight!r}.")

    def to_growth(self) -> GrowthSettings:
        """Return what decides about growth and reward."""
        reward = RewardSettings(
            self.weights, self.token_penalty, self.window, self.num_samples, self.sample_budget
        )
        return GrowthSettings(
            reward,
            num_candidates=self.num_candidates,
            proactive_share=self.proactive_share,
            max_turns=self.max_turns,
            system_prompt=self.system_prompt,
            seed=self.seed,
            keep_cut_replies=self.keep_cut_replies,
        )


@dataclass(kw_only=True)
class CorrectionSettings(TaskSettings):
    """All that `correct_questions` does."""

    _argument_group_name = "the corrections"

    transcripts: str = setting(
        "outputs/simulation", "conversations of the model, by simulate_chats.py", metavar="DIR"
    )
    finished_share: float = setting(
        0.4,
        "share of the corrections after which the user tells all, and the task's reference is the "
        "reply",
        least=0,
        most=1,
    )
    seed: int = setting(0, "seed of the form of the questions, and of what is finished")
    output_dir: str = setting(
        "outputs/corrections", "folder of the rows", metavar="DIR", aliases=("--output",)
    )

    @property
    def transcripts_file(self) -> Path:
        """The file of transcripts."""
        path = Path(self.transcripts)
        return path if path.suffix == ".jsonl" else path / TRANSCRIPTS_FILE
