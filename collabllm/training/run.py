"""One path for every method: check, prepare the data, train, evaluate, leave the results."""

import logging
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerState

from collabllm.data_processing.reply_tokens import end_ids
from collabllm.errors import CostLimitError, IncompleteRunError
from collabllm.hub import HubTarget, create_repository, push_folder
from collabllm.models import load_adapter, load_base_model
from collabllm.settings import to_settings
from collabllm.trackers import open_wandb_run, own_wandb_run
from collabllm.training import card, held_out
from collabllm.training.adapters import build_lora_config, restore_float32, trainable_values
from collabllm.training.callbacks import LastStep, LogRunFacts, SaveOnStop
from collabllm.training.checkpoints import (
    Progress,
    add_run_facts,
    clear_folder,
    describe_kept,
    own_folder,
    read_run_facts,
    read_state,
)
from collabllm.training.data import TrainingData, prepare_once
from collabllm.training.method import Method
from collabllm.training.results import evaluate, leave_results
from collabllm.training.resuming import check_data, count_data, is_complete
from collabllm.training.schedule import plan_evaluation
from collabllm.training.settings import TrainingSettings, split_arguments

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from collabllm.training.sharding import Sharding

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A checked run that has not loaded any weights yet."""

    method: Method
    settings: Any
    config: Any
    given: dict[str, Any]
    tokenizer: "PreTrainedTokenizerBase"
    dtype: torch.dtype
    sharding: "Sharding"
    checkpoint: str | None
    hub: HubTarget | None
    is_main: bool
    progress: Progress = "prepared"

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.config.output_dir)

    def load_model(self) -> "PreTrainedModel | PeftModel":
        """Load the base model, with the adapter to go on from, if there is one."""
        settings = self.settings
        model = load_base_model(
            settings.hf_model_path,
            use_4bit=settings.load_in_4bit,
            dtype=self.dtype,
            sharded=bool(self.sharding.kind),
            attn_implementation=settings.attn_implementation,
            trust_remote_code=self.config.trust_remote_code,
            revision=settings.model_revision,
            **(self.config.model_init_kwargs or {}),
        )
        self.config.model_init_kwargs = None  # used here; the trainer would warn
        model.generation_config.eos_token_id = end_ids(model, self.tokenizer)
        if settings.lora_path:
            return load_adapter(model, settings.lora_path, trainable=True)
        return model

    def build_trainer(
        self, trainer_class: type, data_facts: Mapping[str, Any], **arguments: Any
    ) -> Any:
        """Load the model and put an adapter and a trainer of TRL's around it.

        Args:
            trainer_class: TRL's, or a class made of it.
            data_facts: Facts to send to the tracker.
            arguments: Further arguments of the trainer: data sets, reward functions.
        """
        model = self.load_model()
        exact = trainable_values(model) if self.settings.lora_path else {}
        callbacks = [
            LogRunFacts({"collabllm": asdict(self.settings), "data": dict(data_facts)}),
            *arguments.pop("callbacks", []),
        ]
        trainer = trainer_class(
            model=model,
            args=self.config,
            processing_class=self.tokenizer,
            peft_config=None if exact else build_lora_config(self.settings, model),
            callbacks=callbacks,
            **arguments,
        )
        if self.sharding.keeps_float32:
            restore_float32(trainer.model, exact)
        # Without this the adapter would name a folder of this machine's cache as its base.
        adapter = trainer.model.peft_config["default"]
        adapter.base_model_name_or_path = self.settings.hf_model_path
        adapter.revision = self.settings.model_revision
        # PEFT would look for a base of that name, at every save, to see whether its vocabulary was
        # resized, which it never is here.
        trainer.model.save_pretrained = partial(
            trainer.model.save_pretrained, save_embedding_layers=False
        )
        return trainer


def run_training(
    method: Method, settings: TrainingSettings | None, arguments: Mapping[str, Any]
) -> Path:
    """Run one training from settings to adapter, card, configuration and metrics.

    Args:
        method: New for this run.
        settings: Settings of the method's class; None for defaults.
        arguments: Fields of the settings and of TRL's config by name; they win.

    Returns:
        The output folder.

    Raises:
        ValueError: If a setting, the data or the model does not fit; before any weights load.
        KeyboardInterrupt: After Ctrl-C; the text says what is kept and how to go on.
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    with own_wandb_run():
        return _run(method, settings, arguments)


def _run(method: Method, settings: TrainingSettings | None, arguments: Mapping[str, Any]) -> Path:
    from collabllm.training.start import start_run

    own, fields = split_arguments(method.settings_class, dict(arguments))
    run = start_run(method, to_settings(method.settings_class, settings, own), fields)
    is_auto = run.config.resume_from_checkpoint == "auto"
    if is_auto and is_complete(run.folder, run.settings, run.given, run.checkpoint):
        logger.info("%s is complete; nothing is left to do.", run.folder)
        return run.folder
    try:
        with own_folder(run.folder) if run.is_main else nullcontext():
            data = prepare_once(
                lambda: method.prepare_data(run.settings, run.tokenizer, run.config), run.folder
            )
            num_rows = method.count_rows(len(data.train), run.config)
            plan_evaluation(run.config, fields, num_rows, bool(len(data.eval)))
            return execute(method.build_trainer(run, data), run, data)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted: {describe_kept(run.folder, run.checkpoint, run.progress)}"
        ) from None
    except (IncompleteRunError, CostLimitError) as error:
        kept = describe_kept(run.folder, run.checkpoint, run.progress)
        raise type(error)(f"{error} {kept[0].upper()}{kept[1:]}") from error
    except Exception:
        if run.progress != "prepared":
            kept = describe_kept(run.folder, run.checkpoint, run.progress)
            logger.error("The run ends by an error: %s", kept)
        raise


def execute(trainer: Trainer, run: Run, data: TrainingData) -> Path:
    """Evaluate, train, evaluate again, and write what the run leaves behind."""
    if run.is_main:
        _open_folder(run, data.facts)
    run.progress = "started"
    before, replies_before = evaluate(trainer, run, data, "before")
    trainer.log(data.preflight.to_metrics())
    metrics = _train(trainer, run)
    after, replies_after = evaluate(trainer, run, data, "after")
    if run.is_main:
        leave_results(trainer, run, data, before, after, metrics)
        held_out.print_samples(data.samples[: len(replies_after)], replies_before, replies_after)
        if run.hub:
            push_folder(run.folder, run.hub, "Upload adapter", card.UPLOADED)
        print(f"\nAdapter: {run.folder}")
        if trainer.state.best_model_checkpoint:
            print(
                f"Best on held-out data: {trainer.state.best_model_checkpoint} "
                f"({trainer.args.metric_for_best_model} {trainer.state.best_metric:.3f})"
            )
    trainer.accelerator.wait_for_everyone()
    run.method.end(trainer)
    data.forget()
    return run.folder


def _open_folder(run: Run, data_facts: Mapping[str, Any]) -> None:
    """Take the output folder, the Hub's repository and the W&B run, and write the settings."""
    if run.checkpoint:
        check_data(run.checkpoint, data_facts)
    if run.settings.overwrite_output_dir and not run.checkpoint:
        clear_folder(run.folder, run.settings.lora_path)
    if run.hub:
        create_repository(run.hub)
    (run.folder / card.METRICS_FILE).unlink(missing_ok=True)  # a killed run is no finished one
    card.write_train_config(run.folder, run.settings, run.given, run.method.name)
    known = read_run_facts(run.folder) if run.config.resume_from_checkpoint else {}
    name, num_processes = run.config.run_name, run.config.world_size
    before = known.get("num_processes", num_processes)
    if before != num_processes:
        logger.warning(
            "The run had %d processes and has %d now: with the same batches a step takes another "
            "number of rows.",
            before,
            num_processes,
        )
    facts: dict[str, Any] = {"run_name": name, "num_processes": num_processes}
    facts["data"] = count_data(data_facts)
    facts["hub_model_id"] = run.hub.repo_id if run.hub else None
    if "wandb" in run.config.report_to:
        facts["wandb_run_id"] = open_wandb_run(name, known.get("wandb_run_id"))
    add_run_facts(run.folder, **facts)


def _train(trainer: Trainer, run: Run) -> dict[str, float]:
    """Train and save the adapter, or stop at a signal; return the trainer's metrics."""
    if run.checkpoint and not run.sharding.kind:
        state = read_state(run.checkpoint)
        if run.config.auto_find_batch_size and state.train_batch_size:
            trainer._train_batch_size = state.train_batch_size  # as `train` does, later
        loader = trainer.get_train_dataloader()
        num_steps = trainer.set_initial_training_values(trainer.args, loader)[-1]
        if num_steps <= state.global_step or run.method.is_over(run.settings, state):
            return _take_finished(trainer, run, state)
    on_stop, last_step = SaveOnStop(), LastStep()
    trainer.add_callback(on_stop)
    trainer.add_callback(last_step)
    try:
        result = trainer.train(resume_from_checkpoint=run.checkpoint)
    except Exception:
        last_step.save(trainer)
        raise
    if on_stop.signal is None or trainer.state.global_step >= trainer.state.max_steps:
        trainer.save_model(str(run.folder))
        run.progress = "trained"
    if on_stop.signal_name == "SIGINT":
        raise KeyboardInterrupt
    if on_stop.signal is not None:
        logger.warning(
            "%s: %s", on_stop.signal_name, describe_kept(run.folder, run.checkpoint, run.progress)
        )
        sys.exit(128 + on_stop.signal)
    metrics: dict[str, float] = result.metrics
    return metrics


def _take_finished(trainer: Trainer, run: Run, state: TrainerState) -> dict[str, float]:
    """Save the adapter of a checkpoint with no step left; transformers would take one more."""
    logger.info("No step is left after %s; its adapter is taken.", run.checkpoint)
    trainer._load_from_checkpoint(str(run.checkpoint))
    state.is_local_process_zero = trainer.is_local_process_zero()  # the file is the first one's
    state.is_world_process_zero = trainer.is_world_process_zero()
    if state.best_model_checkpoint and not Path(state.best_model_checkpoint).is_dir():
        state.best_model_checkpoint = None  # as transformers does
    trainer.state = state
    if trainer.args.load_best_model_at_end and state.best_model_checkpoint:
        trainer._load_best_model()
    trainer.save_model(str(run.folder))
    run.progress = "trained"
    return {}
