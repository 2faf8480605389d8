"""Settings of `evaluate`."""

from dataclasses import dataclass
from typing import Any, Literal

from collabllm.evaluation.arms import Arm, ArmSettings
from collabllm.evaluation.plan import ALL_FACTS, SOME_FACTS
from collabllm.rewards.settings import JudgeSettings
from collabllm.settings import setting
from collabllm.simulation.settings import RunSettings
from collabllm.simulation.user_models.registry import UserSpec, to_user_spec
from collabllm.tasks.settings import TaskSettings

DEFAULT_METRICS = ("facts_elicited", "facts_used", "over_asking")


@dataclass(kw_only=True)
class EvaluationSettings(JudgeSettings, RunSettings, TaskSettings, ArmSettings):
    """All that `evaluate` does.

    With `resume`, the arms, users, metrics and openings of the evaluation so far need not be said
    again: what is said here is added to them.
    """

    _argument_group_name = "the evaluation"

    arm: list[str] = setting(
        [],
        "a competitor, given several times: on the local model with lora_path= (a folder, or a "
        "pattern such as outputs/run-* for several trainings of one recipe), behind a server with "
        "model=,base_url=; a mapping in YAML",
        repeated=True,
        metavar="name=NAME[,lora_path=...][,system_prompt=default|proactive|none|TEXT]",
    )
    reference: str | None = setting(
        None, "arm that the others are compared with; default: the first", metavar="NAME"
    )
    user: list[str] = setting(
        [],
        "a simulated user, given several times; a mapping in YAML; default: sharded",
        repeated=True,
        metavar="KIND|name=NAME,kind=KIND,patience=...",
    )
    num_told: list[str] = setting(
        [],
        "facts that the openings tell: numbers, some (as written), all; default: 0 all (something "
        "is missing, and nothing is)",
        metavar="N",
    )
    metrics: list[str] = setting(
        [], f"metrics of each conversation; default: {' '.join(DEFAULT_METRICS)}", metavar="METRIC"
    )
    primary: list[str] = setting(
        [],
        "outcomes that decide, declared before the run; default: facts_elicited@none (for need) "
        "and first_reply_asks@all (for needlessness)",
        metavar="METRIC@none|some|all|unasked",
    )
    cluster_by: str | None = setting(
        None,
        "column whose tasks are not independent of one another; default: that of the split",
        metavar="COLUMN",
    )
    num_rollouts: int = setting(
        1, "conversations of each opened task, training and user; may grow with --resume", least=1
    )
    max_turns: int = setting(4, "most user messages of a conversation", least=1)
    tasks_are: Literal["auto", "development", "test"] = setting(
        "auto",
        "test tasks are counted each time they are opened; auto: those whose name ends in "
        "test, or of a split called test",
    )
    test_log: str = setting(
        "outputs/test_set_uses.jsonl",
        "file that counts how often test tasks were opened",
        metavar="FILE",
        decides=False,
    )
    rescore: list[str] = setting(
        [],
        "with --resume: metrics to compute anew (first_reply_asks, too), or all",
        metavar="METRIC",
        decides=False,
    )
    study: str | None = setting(
        None,
        "folder of scripts/study.py: analyse people's answers instead of simulating; results and "
        "report go to its folder report",
        metavar="DIR",
        decides=False,
    )
    agree_with: str | None = setting(
        None,
        "with --study: folder of an evaluation of the same arms and tasks; says how far its "
        "simulated users agree with people",
        metavar="DIR",
        decides=False,
    )
    report_to: str = setting(
        "none", "tracker, as in accelerate: wandb, tensorboard, ...", decides=False
    )
    output_dir: str = setting(
        "outputs/evaluation",
        "folder of results and report",
        metavar="DIR",
        aliases=("--output",),
        decides=False,
    )
    resume: bool = setting(
        False,
        "go on with the evaluation in --output_dir; arms, users, metrics, openings, rollouts and "
        "tasks (a greater --num_tasks) may be added",
        decides=False,
    )

    def __post_init__(self) -> None:
        """Check arms, users and openings, from the command line or from YAML alike."""
        super().__post_init__()
        self.arm, self.user = _listed(self.arm), _listed(self.user)
        self.num_told = [str(given) for given in _listed(self.num_told)]
        self.arms, self.users, self.told  # noqa: B018  # each says what does not fit
        if self.agree_with and not self.study:
            raise ValueError("--agree_with needs --study: it compares people with an evaluation.")
        if self.rescore and not self.resume:
            raise ValueError("--rescore needs --resume: it computes metrics of a run anew.")

    @property
    def arms(self) -> list[Arm]:
        """The competitors."""
        return [Arm.read(given) for given in self.arm]

    @property
    def users(self) -> list[UserSpec]:
        """The simulated users."""
        return [to_user_spec(given) for given in self.user]

    @property
    def told(self) -> list[int | str]:
        """Numbers of facts that the openings tell, `some` or `all`."""
        return [_read_num_told(given) for given in self.num_told]


def _listed(given: Any) -> list[Any]:
    """Let a single value stand for a list of one, as in a YAML file."""
    return list(given) if isinstance(given, list | tuple) else [given]


def _read_num_told(text: str) -> int | str:
    """Return a number of facts, `some` or `all`."""
    if text in (ALL_FACTS, SOME_FACTS):
        return text
    if not text.isdecimal():
        raise ValueError(f"num_told must be numbers, {SOME_FACTS} or {ALL_FACTS}, got {text!r}.")
    return int(text)
