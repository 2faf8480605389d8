"""Saving at a signal, run facts for the tracker, and evaluation that leaves training untouched."""

import logging
import random
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from collabllm.cli import kill_at_next_interrupt
from collabllm.training import held_out

logger = logging.getLogger(__name__)

_STOP_KEY = "collabllm/last_step"


class SaveOnStop(TrainerCallback):
    """Finish the step at hand, save a checkpoint and stop at SIGTERM or Ctrl-C; a second one kills.

    transformers' `enable_jit_checkpoint` saves between the backward pass and the optimizer step,
    when the random state is already that of the next step, so a resumed run would differ.

    Several processes agree on the step without talking at every step: the one that got the signal
    names the next step in the store of the process group. None gets past the gradients of that
    step without it, so all find the name when the step ends.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def signal_name(self) -> str:
        """Name of the signal that came."""
        return signal.Signals(self.signal).name if self.signal else ""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Install the handlers; only a main thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()
        kill_at_next_interrupt()
        logger.warning(
            "%s: saving a checkpoint after this step; a second signal ends at once.",
            signal.Signals(number).name,
        )

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Ask the trainer to save and stop."""
        stops = self.signal is not None
        if args.world_size > 1:
            stops = self._agree(state.global_step)
        if stops:
            control.should_save = control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """After a signal during an evaluation, save the step before it instead of taking one more.

        Several processes go on to the next step, where they agree.
        """
        if self.signal is not None and args.world_size == 1:
            control.should_save = control.should_training_stop = True

    def _agree(self, step: int) -> bool:
        """Tell whether all processes stop after this step."""
        store = torch.distributed.distributed_c10d._get_default_store()
        if not store.check([_STOP_KEY]):
            if self.signal is not None:
                store.set(_STOP_KEY, f"{step + 1} {self.signal}")
            return False
        last, number = map(int, store.get(_STOP_KEY).split())
        self.signal = number
        return step >= last

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Put the previous handlers back."""
        self._restore()

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous or signal.SIG_DFL)
        self._previous = {}


class LastStep(TrainerCallback):
    """Remember the end of the last step, to save it after an error in what followed.

    A resumed run needs the random state of a step's end, and none of the step that failed.
    """

    def __init__(self) -> None:
        """Start before the first step."""
        self._random: tuple[Any, ...] | None = None

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Keep the random state."""
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._random = (random.getstate(), np.random.get_state(), torch.get_rng_state(), devices)

    def save(self, trainer: Any) -> None:
        """Save a checkpoint of the last step that ended, if there is none and it is sound.

        With several processes none is saved: the others are elsewhere.
        """
        step = trainer.state.global_step
        folder = Path(trainer.args.output_dir) / f"checkpoint-{step}"
        if self._random is None or folder.exists() or trainer.args.world_size > 1:
            return
        weights = (p for p in trainer.model.parameters() if p.requires_grad)
        try:
            if not all(bool(torch.isfinite(weight).all()) for weight in weights):
                logger.error("Step %d is not saved: it left weights that are no numbers.", step)
                return
            self._restore()
            trainer._save_checkpoint(trainer.model, trial=None)
        except Exception as error:  # of any writer: the first error is the one to see
            logger.error("Step %d cannot be saved: %s", step, error)

    def _restore(self) -> None:
        assert self._random is not None
        own, of_numpy, of_torch, devices = self._random
        random.setstate(own)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if devices:
            torch.cuda.set_rng_state_all(devices)


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

    ranked_rows: Sequence[Any] | Dataset = ()
    """Held-out pairs to rank at every evaluation, from `tokenizing.to_ranked_rows`."""

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as the trainer does, rank the held-out pairs, then restore the random state.

        A data loader draws its seed from the global generator, which also feeds dropout.
        """
        with torch.random.fork_rng(devices=_cuda_devices()):
            metrics = super().evaluate(*args, **kwargs)  # type: ignore[misc]
            if len(self.ranked_rows):
                sums = held_out.score_rows(self, self.ranked_rows, "Held-out pairs")
                ranking = {"eval_ranking_accuracy": held_out.rank_pairs(sums)["ranking_accuracy"]}
                self.log(ranking)  # type: ignore[attr-defined]
                metrics.update(ranking)
            return metrics


class SaveWithoutReference:
    """Mixin for a trainer that keeps a frozen copy of the adapter it started from."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as the trainer does, without the frozen copy of the adapter in the final folder."""
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        reference = Path(output_dir or self.args.output_dir) / "ref"  # type: ignore[attr-defined]
        is_main = self.is_world_process_zero()  # type: ignore[attr-defined]
        if not _internal_call and is_main and reference.is_dir():
            for file in reference.iterdir():
                file.unlink()
            reference.rmdir()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load as the trainer does, and the adapter that trains.

        Before 5.23 transformers loads the copy alone, and the run would go on from its start.
        """
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        if (Path(resume_from_checkpoint) / "ref").is_dir():
            model = model or self.model  # type: ignore[attr-defined]
            model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)


def _cuda_devices() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []
