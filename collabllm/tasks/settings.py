"""Settings that say which tasks conversations are about."""

from dataclasses import dataclass
from typing import Literal

from collabllm.settings import Settings, setting
from collabllm.tasks import DEMO_TASKS, Task, choose_side, load_tasks
from collabllm.tasks.held_out import choose_held_out


@dataclass(kw_only=True)
class TaskSettings(Settings):
    """Which tasks the conversations are about."""

    _argument_group_name = "the tasks"

    tasks: str = setting(
        DEMO_TASKS, "task file, dataset (Hub id or folder), or demo", metavar="TASKS"
    )
    dataset_split: str = setting(
        "train", "split of a Hub dataset or a folder", metavar="SPLIT", aliases=("--tasks_split",)
    )
    dataset_config: str | None = setting(None, "configuration of a Hub dataset", metavar="NAME")
    task_columns: dict[str, str] | None = setting(
        None, 'columns of a foreign dataset: {"single_turn_prompt": "question", ...}'
    )
    held_out_of: str | None = setting(
        None, "folder of a training run: take only tasks that it held out", metavar="RUN"
    )
    side: Literal["all", "train", "eval"] = setting(
        "all", "without a run: take the tasks on this side of a split by --split_by"
    )
    eval_ratio: float = setting(0.1, "with --side: share of tasks on the eval side", least=0)
    split_by: str = setting(
        "single_turn_prompt", "with --side: column that the split goes by", metavar="COLUMN"
    )
    num_tasks: int | None = setting(None, "take only the first tasks", least=1, decides=False)

    def __post_init__(self) -> None:
        """Refuse two ways of choosing tasks at once."""
        super().__post_init__()
        if self.held_out_of and self.side != "all":
            raise ValueError(
                f"--held_out_of {self.held_out_of} knows the split; leave --side {self.side} out."
            )

    def load_tasks(self) -> list[Task]:
        """Load the tasks that these settings name.

        Raises:
            FileNotFoundError: If a file or the run is not there.
            ValueError: If there is no such task, or no such column.
        """
        every = self.side == "all" and not self.held_out_of
        tasks = load_tasks(
            self.tasks,
            self.num_tasks if every else None,
            self.dataset_split,
            self.task_columns,
            self.dataset_config,
        )
        if self.held_out_of:
            tasks = choose_held_out(tasks, self.held_out_of)
        tasks = choose_side(tasks, self.side, self.eval_ratio, self.split_by)
        return tasks[: self.num_tasks]
