"""TRL's trainer of online training: our order of prompts, and whole conversations held out."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from collabllm.tasks import Task
from collabllm.trackers import log_table
from collabllm.training.callbacks import SaveWithoutReference
from collabllm.training.checkpoints import CONVERSATIONS
from collabllm.training.grpo_online import PolicyReward
from collabllm.training.grpo_own_turns import go_on
from collabllm.training.grpo_prompts import PromptSampler
from collabllm.training.grpo_talks import measure, talk_about, to_rows
from collabllm.training.method import Scores
from collabllm.training.token_budget import TokenBudget


class OnlineTrainer(SaveWithoutReference, GRPOTrainer):
    """TRL's trainer, evaluated by whole conversations about held-out tasks."""

    online: PolicyReward
    rows: Sequence[Mapping[str, Any]] = ()
    """Rows of the prompts that are answered now: TRL hands `rollout_func` the prompts alone."""
    held_out_tasks: Sequence[Task] = ()
    prompt_order: "PromptOrder"
    control: TrainerControl
    _last_loaded_step: int

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        online, self.rows = self.online, inputs
        before = online.num_generated
        if online.settings.prompts == "own_turns":
            self.rows, failed = go_on(inputs, online, self.state.global_step)
            self._log_metric("own_turns/failed", failed)
        scored: dict[str, Any] = super()._generate_and_score_completions(list(self.rows))
        if not online.settings.train_first_token:
            leave_out_first_tokens(scored)
        budget = next(c for c in self.callback_handler.callbacks if isinstance(c, TokenBudget))
        budget.add(online.num_generated - before, self.accelerator)
        self._metrics["train"]["generated_tokens"] = [budget.total]
        return scored

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        """Shuffle all prompts, or openings by task; turns are in their order where not shuffled."""
        dataset = self.train_dataset if dataset is None else dataset
        repeats: RepeatSampler = super()._get_train_sampler(dataset)
        together = not self.shuffle_dataset and self.online.settings.prompts != "turns"
        self.prompt_order.sampler = PromptSampler(
            dataset,
            list(dataset["single_turn_prompt"]) if together else None,
            seed=self._order_seed(together),
            mini_repeat_count=repeats.mini_repeat_count,
            batch_size=repeats.batch_size,
            repeat_count=repeats.repeat_count,
        )
        return cast("Sampler[int]", self.prompt_order.sampler)

    def _order_seed(self, together: bool) -> int | None:
        if not (self.shuffle_dataset or together):
            return None
        own = self.args.data_seed
        return int(self.args.seed if own is None else own)

    def sync_vllm(self) -> None:
        """Give vLLM the weights of this step, unless it has them."""
        if self.state.global_step != self._last_loaded_step:
            self.vllm_generation.sync_weights()
            self._last_loaded_step = self.state.global_step
            self.accelerator.wait_for_everyone()  # the main process alone tells a server

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Talk about the held-out tasks, and log what the conversations are worth."""
        step = self.state.global_step
        scores = self.talk(f"held_out-{step:05d}", self.held_out_tasks)
        metrics = {f"eval_{name}": value for name, value in scores.items()}
        was_training = self.model.training
        self.model.eval()  # TRL would put the step's training metrics beside these
        self.log(dict(metrics))
        self.model.train(was_training)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        for name in ("reward", *self.online.settings.reward.weights):
            metrics.setdefault(f"eval_{name}", math.nan)  # without a value this step is no best one
        return metrics

    def talk(self, name: str, tasks: Sequence[Task]) -> Scores:
        """Talk about tasks in the main process, leave the transcripts, and tell all the scores.

        Args:
            name: Of the file of transcripts, and of the tracker's table.
            tasks: What the conversations are about.

        Raises:
            CostLimitError: If the cost limit is reached.
        """
        if self.use_vllm:
            self.sync_vllm()  # in which all processes take part
        told: list[Any] = [None]
        if self.is_world_process_zero():
            try:
                told = [self._talk(name, tasks)]
            except Exception as error:
                told = [error]  # for all, or the others would wait
        broadcast_object_list(told)
        if isinstance(told[0], Exception):
            raise told[0]
        return cast("Scores", told[0])

    def _talk(self, name: str, tasks: Sequence[Task]) -> Scores:
        file = Path(self.args.output_dir) / CONVERSATIONS / f"{name}.jsonl"
        talks = talk_about(tasks, self.online, file)
        step = self.state.global_step
        if "wandb" in self.args.report_to:
            table = f"conversations/{name.partition('-')[0]}"
            log_table(table, to_rows(talks, step), {"train/global_step": step})
        return measure(talks)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `card.write_card` does, when the run is over."""


def leave_out_first_tokens(scored: dict[str, Any]) -> None:
    """Take the first token of every reply out of the loss; it is still read.

    Args:
        scored: TRL's batch. `tool_mask`, of replies x tokens, is 1 where the policy wrote; it may
            be missing where nobody else did.
    """
    mask = scored.get("tool_mask", torch.ones_like(scored["completion_mask"]))
    is_first = mask.bool()
    is_first[:, 1:] &= mask[:, :-1] == 0
    scored["tool_mask"] = mask * ~is_first


class PromptOrder(TrainerCallback):
    """Tells the sampler the epoch: with several processes no loader reaches it."""

    sampler: PromptSampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell it, also where a resumed run begins within an epoch."""
        self.sampler.set_epoch(int(state.epoch + 1e-6))


class SampleTalks(TrainerCallback):
    """Writes a few conversations about training tasks every N steps."""

    def __init__(self, tasks: Sequence[Task], steps: int) -> None:
        self.tasks, self.steps = tasks, steps
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Talk, if it is time."""
        if self.steps and self.tasks and state.global_step % self.steps == 0:
            self.trainer.talk(f"sample-{state.global_step:05d}", self.tasks)
