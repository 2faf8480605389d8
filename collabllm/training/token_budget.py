"""How many tokens the policy has written in an online run, and the end of the run by that."""

import logging
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

logger = logging.getLogger(__name__)


class TokenBudget(TrainerCallback, ExportableState):
    """Counts replies and futures of all processes, and stops the training when they are enough.

    The count goes on after a resume. Trainings of different windows or credits that stop at the
    same count have cost the same; their numbers of steps have not.

    Args:
        limit: Tokens after which no step begins; none where None.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.total = limit, 0
        self._of_steps = 0  # without a step that has not ended

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"args": {"limit": self.limit}, "attributes": {"total": self._of_steps}}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Take the count of the checkpoint, if there is one."""
        self._take(state)

    def is_spent(self, state: TrainerState) -> bool:
        """Tell whether a checkpoint's steps have written enough."""
        self._take(state)
        return self.limit is not None and self.total >= self.limit

    def _take(self, state: TrainerState) -> None:
        kept: Any = (state.stateful_callbacks or {}).get(type(self).__name__)
        if kept and state.global_step:
            self.total = self._of_steps = kept["attributes"]["total"]

    def add(self, num_tokens: int, accelerator: Any) -> None:
        """Count what each process has written in a step."""
        count = torch.tensor(num_tokens, device=accelerator.device)
        self.total += int(accelerator.reduce(count, "sum"))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Stop at the limit."""
        self._of_steps = self.total
        if self.limit and self.total >= self.limit:
            control.should_training_stop = True

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Say what was written, and whether the steps ended before the tokens did."""
        logger.info("The policy has written %d tokens in %d steps.", self.total, state.global_step)
        if self.limit and self.total < self.limit and state.global_step >= state.max_steps:
            logger.warning(
                "Training ended at %d of %d generated tokens, after %d steps: raise --max_steps.",
                self.total,
                self.limit,
                state.global_step,
            )
