"""What every training run does around its trainer: checks, before and after, what it leaves."""

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from transformers import HfArgumentParser, Trainer

from collabllm.data_processing.loading import BUNDLED_DATASET
from collabllm.flags import read_flags, unknown_flag_message
from collabllm.hub import HubTarget, prepare_hub, push_folder
from collabllm.models import BUNDLED_MODEL, choose_dtype, load_base_model, load_tokenizer
from collabllm.trackers import prepare_wandb
from collabllm.training import card, held_out
from collabllm.training.adapters import check_model
from collabllm.training.callbacks import LogRunFacts, SaveOnSigterm
from collabllm.training.checkpoints import find_checkpoint
from collabllm.training.preflight import Preflight
from collabllm.training.train_utils import (
    get_timebased_filename,
    parse_secrets_runpod,
    use_hub_token,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Scores = dict[str, float]


@dataclass
class Run:
    """A checked run that has not loaded any weights yet."""

    method: str
    args: argparse.Namespace
    config: Any
    given: dict[str, Any]
    tokenizer: "PreTrainedTokenizerBase"
    checkpoint: str | None
    hub: HubTarget | None
    is_main: bool

    @property
    def sharded(self) -> bool:
        """Whether FSDP or DeepSpeed splits the model."""
        kinds = (DistributedType.FSDP, DistributedType.DEEPSPEED)
        return PartialState().distributed_type in kinds

    def load_model(self) -> "PreTrainedModel":
        """Load the base model as the flags say."""
        dtype = choose_dtype()
        return load_base_model(
            self.args.hf_model_path,
            use_4bit=not self.args.no_4bit,
            dtype=dtype,
            quant_storage=dtype if self.sharded else None,
            trust_remote_code=self.config.trust_remote_code,
        )

    def log_facts(self, data_facts: dict[str, Any]) -> LogRunFacts:
        """Make the callback that puts settings and data counts into the tracker."""
        return LogRunFacts({"collabllm": _settings(self.args), "data": data_facts})


def start_run(args: argparse.Namespace, config_class: type, method: str) -> Run:
    """Check logins, the Hub, the model and the flags, before any weights load.

    Args:
        args: From `arguments.parse_arguments`; stays as it is.
        config_class: TRL's, `SFTConfig` or `DPOConfig`.
        method: `sft` or `dpo`; begins the run's name.

    Raises:
        ValueError: If a flag or the model does not fit.
    """
    if args.parse_secrets_runpod:
        parse_secrets_runpod()
    args = argparse.Namespace(**vars(args))
    config, given = build_config(args, config_class, method)
    use_hub_token(config.hub_token)
    config.hub_token = None  # the trainer pickles its arguments into the output folder
    is_main = PartialState().is_main_process
    hub = None
    if is_main:
        _announce(args)
        if "wandb" in config.report_to:
            prepare_wandb(config.output_dir)
        hub = prepare_hub(
            args.push_to_hub, config.run_name, config.hub_model_id, config.hub_private_repo
        )
    checkpoint = find_checkpoint(config.resume_from_checkpoint, config.output_dir)
    context = check_model(args.hf_model_path, config.trust_remote_code)
    if context and args.max_length > context:
        logger.info(
            "max_length lowered from %d to the model's context, %d.", args.max_length, context
        )
        args.max_length = config.max_length = context
    tokenizer = load_tokenizer(args.hf_model_path)
    return Run(method, args, config, given, tokenizer, checkpoint, hub, is_main)


def build_config(
    args: argparse.Namespace, config_class: type, method: str
) -> tuple[Any, dict[str, Any]]:
    """Build TRL's configuration from our flags and the trainer's own.

    Returns:
        The configuration, and those of its fields that the user set, by name.

    Raises:
        ValueError: If a flag is unknown; the message offers the nearest known one.
    """
    run_name = [get_timebased_filename(f"{method}-{args.output_name_tag}")]
    if not torch.cuda.is_available():
        PartialState(cpu=True)
    broadcast_object_list(run_name)  # processes start in different seconds
    parser = HfArgumentParser(config_class, allow_abbrev=False)
    dtype = choose_dtype()
    defaults = {
        "output_dir": str(Path("outputs") / run_name[0]),
        "run_name": run_name[0],
        "learning_rate": args.learning_rate,
        "per_device_train_batch_size": args.batch_size,
        "per_device_eval_batch_size": args.batch_size,
        "max_length": args.max_length,
        "report_to": "wandb",
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    words = [word for key, value in defaults.items() for word in (f"--{key}", str(value))]
    config, rest = parser.parse_args_into_dataclasses(
        [*words, *args.trainer_args], return_remaining_strings=True
    )
    names = {field.name for field in fields(config_class)}
    if rest:
        raise ValueError(unknown_flag_message(rest, names | set(vars(args))))
    given = read_flags(args.trainer_args)
    given.pop("hub_token", None)  # a secret: it must not reach the files that a run leaves
    return config, given


def _announce(args: argparse.Namespace) -> None:
    if args.hf_model_path == BUNDLED_MODEL:
        logger.info("Model: the bundled %s (--hf_model_path for another).", BUNDLED_MODEL)
    if args.hf_dataset_path == BUNDLED_DATASET:
        logger.info("Dataset: the bundled demo conversations (--hf_dataset_path for another).")


def keep_float32(model: torch.nn.Module) -> None:
    """Turn trainable weights back to float32: TRL makes them bf16, which rounds updates away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name != "trainer_args"}


def execute(
    trainer: Trainer,
    run: Run,
    preflight: Preflight,
    data_facts: dict[str, Any],
    samples: list[Any],
    score: Callable[[], Scores],
) -> Path:
    """Evaluate, train, evaluate again, and write what the run leaves behind.

    Args:
        trainer: Ready to train.
        run: From `start_run`.
        preflight: What will be trained on.
        data_facts: For card and tracker.
        samples: Held-out conversations to answer before and after.
        score: Measures the model on held-out data; empty where nothing is held out.

    Returns:
        The output folder.

    Raises:
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    folder = Path(trainer.args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if run.is_main:
        card.write_train_config(folder, run.args, run.given, run.method)
    before, replies_before = _evaluate(trainer, score, samples, "before")
    trainer.log(preflight.to_metrics())
    on_sigterm = SaveOnSigterm()
    trainer.add_callback(on_sigterm)
    result = trainer.train(resume_from_checkpoint=run.checkpoint)
    if on_sigterm.interrupted:
        logger.warning(
            "SIGTERM: saved %s/checkpoint-%d. Go on with the same command and --output_dir %s "
            "--resume_from_checkpoint true",
            folder,
            trainer.state.global_step,
            folder,
        )
        sys.exit(143)
    after, replies_after = _evaluate(trainer, score, samples, "after")
    trainer.save_model(str(folder))
    if run.is_main:
        facts = {
            "method": run.method,
            "run_name": trainer.args.run_name,
            "bundled": run.args.hf_model_path == BUNDLED_MODEL,
            "settings": {**_settings(run.args), **run.given},
            "data": data_facts,
        }
        card.write_card(folder, run.args, facts, before, after, run.hub)
        card.write_metrics(
            folder,
            {
                "before": before,
                "after": after,
                "train": result.metrics,
                "preflight": preflight.to_metrics(),
                "data": data_facts,
                "versions": card.library_versions(),
                "log_history": trainer.state.log_history,
            },
        )
        if before:
            held_out.print_comparison(before, after)
        held_out.print_samples(samples[: len(replies_after)], replies_before, replies_after)
        if run.hub:
            push_folder(folder, run.hub, "Upload adapter", card.NOT_UPLOADED)
        print(f"\nAdapter: {folder}")
    trainer.accelerator.wait_for_everyone()
    trainer.end()
    return folder


def _evaluate(
    trainer: Trainer, score: Callable[[], Scores], samples: list[Any], when: str
) -> tuple[Scores, list[str]]:
    """Score the held-out data and answer the samples; the random state stays as it was."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        logger.info("With a sharded model only the trainer's own evaluation runs, %s.", when)
        return {}, []
    with torch.random.fork_rng():
        scores = score()
        replies = []
        if scores and trainer.is_world_process_zero():
            replies = held_out.answer_samples(trainer, samples)
    if scores:
        trainer.log({f"held_out_{when}/{name}": value for name, value in scores.items()})
    return scores, replies
