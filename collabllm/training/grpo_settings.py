"""Settings of online training: where prompts come from, who plays the user, what is rewarded."""

from dataclasses import dataclass
from typing import Literal

from collabllm.rewards.scoring import DEFAULT_WEIGHTS, RewardSettings
from collabllm.rewards.settings import JudgeSettings
from collabllm.settings import setting
from collabllm.simulation.settings import RunSettings, UserSettings
from collabllm.tasks import Task, choose_side, load_tasks, open_with
from collabllm.training.settings import TrainingSettings


@dataclass(kw_only=True)
class GRPOSettings(JudgeSettings, RunSettings, UserSettings, TrainingSettings):
    """Settings of online training."""

    _argument_group_name = "online training"

    learning_rate: float = setting(1e-5, "peak learning rate")
    batch_size: int = setting(8, "replies per device and step, whole groups of a prompt", least=1)
    credit: Literal["turn", "conversation"] = setting(
        "turn",
        "what one reward is for: a reply, by its futures, or the policy's whole conversation",
    )
    prompts: Literal["openings", "own_turns", "turns"] = setting(
        "openings",
        "what the policy answers: first messages of tasks, turns of the conversations that it has "
        "about them at that step, or the turns of the dataset",
    )
    tasks: str | None = setting(
        None, "task file, dataset or demo; default: the tasks of --hf_dataset_path", metavar="TASKS"
    )
    num_told: list[int] = setting(
        [0], "facts told in the openings; each task opens once in every way", metavar="N", least=0
    )
    window: int = setting(
        2, "user messages simulated after a reply (--credit turn); 0 for none", least=0
    )
    num_samples: int = setting(3, "futures of each reply (--credit turn)", least=1)
    weights: dict[str, float] = setting(
        dict(DEFAULT_WEIGHTS), 'metrics of the reward and their weights: {"facts_elicited": 1}'
    )
    train_first_token: bool = setting(
        True,
        "false: the first token of each reply, which decides whether it asks, has no loss of its "
        "own; the weights that it shares with the others still move it",
    )
    token_penalty: float = setting(
        0.0, "penalty per assistant token, capped at 1 in total", least=0
    )
    watched: list[str] = setting(
        ["repetition", "token_amount"], "metrics to log that are not rewarded", metavar="METRIC"
    )
    max_generated_tokens: int | None = setting(
        None,
        "tokens of replies and futures after which the training ends, if --max_steps does not end "
        "it before",
        least=1,
    )
    reward_timeout_s: float = setting(
        600.0, "seconds until a reply whose futures are not done goes without a reward", least=0.1
    )
    max_missing: float = setting(
        0.2, "share of replies without a reward in one step that stops the run", least=0, most=1
    )
    max_turns: int = setting(4, "most user messages of a whole conversation", least=1)
    max_eval_tasks: int = setting(
        32, "most held-out conversations at each evaluation", least=1, decides=False
    )
    sample_steps: int = setting(
        10, "steps between sample conversations about training tasks; 0 for none", least=0
    )

    @property
    def dataset(self) -> str:
        """Name of what the prompts come from, for reports."""
        return self.tasks if self.tasks and self.prompts != "turns" else super().dataset

    @property
    def reward(self) -> RewardSettings:
        """How a reply is rewarded; watched metrics weigh nothing."""
        set_aside = [name for name in self.watched if name not in self.weights]
        weights = {**self.weights, **dict.fromkeys(set_aside, 0.0)}
        return RewardSettings(weights, self.token_penalty, self.window, self.num_samples)

    def load_tasks(self) -> list[Task]:
        """Load the tasks of both sides, as they are.

        Raises:
            FileNotFoundError: If a file is not there.
            ValueError: If there is no such task, two goals have one id, or two tasks one goal.
        """
        paths = [self.tasks] if self.tasks else self.hf_dataset_path
        tasks: dict[str, Task] = {}
        for path in paths:
            for task in load_tasks(path, split=self.dataset_split, config=self.dataset_config):
                known = tasks.setdefault(task.single_turn_prompt, task)
                own, other = ((one.facts, one.single_turn_completion) for one in (known, task))
                if own != other:
                    raise ValueError(
                        f"{path}: the tasks {known.task_id!r} and {task.task_id!r} have one goal, "
                        "by which the task of a reply is known here, and different facts or "
                        "references. Word one goal differently."
                    )
        return list(tasks.values())

    def open_tasks(self, side: Literal["train", "eval"]) -> list[Task]:
        """Return the tasks of one side, each with every opening that `num_told` asks for.

        Raises:
            ValueError: If no task is on that side.
        """
        if side == "eval" and not self.eval_ratio:
            return []
        chosen = choose_side(self.load_tasks(), side, self.eval_ratio, self.split_by)
        opened = [open_with(task, number) for task in chosen for number in self.num_told]
        return list({task.task_id: task for task in opened}.values())
