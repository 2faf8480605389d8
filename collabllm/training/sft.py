"""Supervised fine-tuning by QLoRA on the best-scored replies of multi-turn conversations."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from transformers import HfArgumentParser
from trl import SFTConfig, SFTTrainer

from collabllm.data_processing.loading import BUNDLED_DATASET
from collabllm.flags import read_flags, unknown_flag_message
from collabllm.models import BUNDLED_MODEL, choose_dtype, load_base_model, load_tokenizer
from collabllm.training import artifacts, held_out
from collabllm.training.callbacks import KeepRandomState, LogRunFacts, SaveOnSigterm
from collabllm.training.checkpoints import find_checkpoint
from collabllm.training.lora import build_lora_config, check_model
from collabllm.training.sft_data import TrainingData, prepare_data
from collabllm.training.train_utils import (
    HubTarget,
    get_timebased_filename,
    parse_secrets_runpod,
    prepare_hub,
    prepare_wandb,
    use_hub_token,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class _Trainer(KeepRandomState, SFTTrainer):
    """TRL's trainer, with evaluation that leaves training untouched and a card of our own."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `artifacts.write_card` does, when the run is over."""


def train_sft(args: argparse.Namespace) -> Path:
    """Fine-tune a model as the flags say, and leave adapter, card, configuration and metrics.

    Args:
        args: From `arguments.parse_arguments`.

    Returns:
        The output folder.

    Raises:
        ValueError: If a flag, the data or the model does not fit; before any weights load.
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    if args.parse_secrets_runpod:
        parse_secrets_runpod()
    args = argparse.Namespace(**vars(args))  # the caller's stays as it is
    config, given = build_config(args)
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
    with PartialState().main_process_first():
        data = prepare_data(args, tokenizer, quiet=not is_main)
    trainer = build_trainer(args, config, tokenizer, data)
    return _run(trainer, args, given, data, checkpoint, hub)


def build_config(args: argparse.Namespace) -> tuple[SFTConfig, dict[str, Any]]:
    """Build TRL's configuration from our flags and the trainer's own.

    Returns:
        The configuration, and those of its fields that the user set, by name.

    Raises:
        ValueError: If a flag is unknown; the message offers the nearest known one.
    """
    run_name = [get_timebased_filename(f"sft-{args.output_name_tag}")]
    if not torch.cuda.is_available():
        PartialState(cpu=True)
    broadcast_object_list(run_name)  # processes start in different seconds
    parser = HfArgumentParser(SFTConfig, allow_abbrev=False)
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
    names = {field.name for field in fields(SFTConfig)}
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


def build_trainer(
    args: argparse.Namespace,
    config: SFTConfig,
    tokenizer: "PreTrainedTokenizerBase",
    data: TrainingData,
) -> _Trainer:
    """Load the base model and put a fresh adapter and the trainer around it."""
    dtype = choose_dtype()
    sharded = PartialState().distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    model = load_base_model(
        args.hf_model_path,
        use_4bit=not args.no_4bit,
        dtype=dtype,
        quant_storage=dtype if sharded else None,
        trust_remote_code=config.trust_remote_code,
    )
    trainer = _Trainer(
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.eval if len(data.eval) else None,
        processing_class=tokenizer,
        peft_config=build_lora_config(args),
        callbacks=[LogRunFacts({"collabllm": _settings(args), "data": data.facts})],
    )
    if not sharded:  # FSDP needs one type for all; else float32 keeps updates that bf16 rounds away
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return trainer


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name != "trainer_args"}


def _run(
    trainer: _Trainer,
    args: argparse.Namespace,
    given: dict[str, Any],
    data: TrainingData,
    checkpoint: str | None,
    hub: HubTarget | None,
) -> Path:
    """Evaluate, train, evaluate again, and write what the run leaves behind."""
    folder = Path(trainer.args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    is_main = trainer.is_world_process_zero()
    if is_main:
        artifacts.write_train_config(folder, args, given)
    before, replies_before = _evaluate(trainer, data, "before")
    trainer.log(data.preflight.to_metrics())
    on_sigterm = SaveOnSigterm()
    trainer.add_callback(on_sigterm)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    if on_sigterm.interrupted:
        logger.warning(
            "SIGTERM: saved %s/checkpoint-%d. Go on with the same command and --output_dir %s "
            "--resume_from_checkpoint true",
            folder,
            trainer.state.global_step,
            folder,
        )
        sys.exit(143)
    after, replies_after = _evaluate(trainer, data, "after")
    trainer.save_model(str(folder))
    if is_main:
        facts = {
            "run_name": trainer.args.run_name,
            "bundled": args.hf_model_path == BUNDLED_MODEL,
            "settings": {**_settings(args), **given},
            "data": data.facts,
        }
        artifacts.write_card(folder, args, facts, before, after, hub)
        artifacts.write_metrics(
            folder,
            {
                "before": before,
                "after": after,
                "train": result.metrics,
                "preflight": data.preflight.to_metrics(),
                "data": data.facts,
                "versions": artifacts.library_versions(),
                "log_history": trainer.state.log_history,
            },
        )
        if before:
            held_out.print_comparison(before, after)
        held_out.print_samples(data.samples[: len(replies_after)], replies_before, replies_after)
        if hub:
            artifacts.push_adapter(folder, hub)
        print(f"\nAdapter: {folder}")
    trainer.accelerator.wait_for_everyone()
    trainer.end()
    return folder


def _evaluate(
    trainer: _Trainer, data: TrainingData, when: str
) -> tuple[dict[str, float], list[str]]:
    """Score the held-out rows and answer the samples; the random state stays as it was."""
    if not len(data.eval):
        return {}, []
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        logger.info("With a sharded model only the trainer's own evaluation runs, %s.", when)
        return {}, []
    with torch.random.fork_rng():
        scores = held_out.score_held_out(trainer, data.eval, data.pairs)
        replies = []
        if trainer.is_world_process_zero():
            replies = held_out.answer_samples(trainer, data.samples)
    trainer.log({f"held_out_{when}/{name}": value for name, value in scores.items()})
    return scores, replies
