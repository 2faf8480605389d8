"""Saving at SIGTERM, run facts for the tracker, and evaluation that leaves training untouched."""

import logging
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


class SaveOnSigterm(TrainerCallback):
    """Finish the step at hand, save a checkpoint and stop when the process gets SIGTERM.

    transformers' `enable_jit_checkpoint` saves between the backward pass and the optimizer step,
    when the random state is already that of the next step, so a resumed run would differ.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.interrupted = False
        self._previous: Any = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Install the handler."""
        self._previous = signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Ask the trainer to save and stop; with several processes as soon as one was told to."""
        if args.world_size > 1:
            flag = torch.tensor(int(self.interrupted), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.interrupted = bool(flag.item())
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Put the previous handler back."""
        signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)


class LogRunFacts(TrainerCallback):
    """Put the run's settings and data counts into the W&B run's configuration."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        """Remember the facts until the run has started."""
        self.facts = dict(facts)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Add the facts; the tracker's own callback has started the run before."""
        if state.is_world_process_zero and "wandb" in args.report_to:
            import wandb

            if wandb.run is not None:
                wandb.run.config.update(self.facts, allow_val_change=True)


class KeepRandomState:
    """Mixin for a trainer: evaluating draws no random numbers from the training run's stream."""

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as the trainer does, then restore the random state.

        A data loader draws its seed from the global generator, which also feeds dropout.
        """
        with torch.random.fork_rng(devices=_cuda_devices()):
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]


def _cuda_devices() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
