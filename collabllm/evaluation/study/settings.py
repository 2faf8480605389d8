"""Settings of a study."""

from dataclasses import dataclass

from collabllm.evaluation.people import PageSettings
from collabllm.settings import setting
from collabllm.tasks.settings import TaskSettings

MAX_TURNS = 50
"""So many messages of a person end a conversation."""


@dataclass(kw_only=True)
class StudySettings(PageSettings, TaskSettings):
    """All that a study does."""

    _argument_group_name = "the study"

    participants: int = setting(20, "people, each with a link of their own", least=1)
    tasks_each: int | None = setting(None, "tasks per person; default: one with each arm", least=1)
    min_turns: int = setting(
        3, "fewest messages that a person writes on a task", least=1, most=MAX_TURNS
    )
    rate_every: int = setting(
        3, "ask how it goes after every so many messages; 0 asks only at the end", least=0
    )
    pad_s: float = setting(
        0.0, "no reply comes sooner than after these seconds, so that none is known by its speed",
        least=0,
    )  # fmt: skip
    contact: str = setting("", "whom participants may ask, on the page of consent")
    output_dir: str = setting(
        "outputs/study",
        "folder of links, answers and report; an existing study goes on",
        metavar="DIR",
        decides=False,
    )
    export: str | None = setting(
        None,
        "write the answers without identities to this file, and end",
        metavar="FILE",
        decides=False,
    )
    plan: float | None = setting(
        None,
        "say how many people show this difference in grades (1 to 5) with 80% power, and end",
        metavar="DIFFERENCE",
        decides=False,
    )
    spread: float = setting(
        1.3, "with --plan: standard deviation of one person's difference", decides=False
    )
