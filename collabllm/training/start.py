"""The beginning of every run: flags, logins, model, adapter and tokenizer, before weights load."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers.utils import is_liger_kernel_available

from collabllm.data_processing.loading import BUNDLED_DATASET
from collabllm.hub import BUNDLED_MODEL, HubTarget, check_hub
from collabllm.models import choose_dtype, load_tokenizer
from collabllm.trackers import check_training_trackers, prepare_wandb
from collabllm.training.adapters import check_checkpoint, check_model
from collabllm.training.checkpoints import (
    check_output_folder,
    find_checkpoint,
    is_finished,
    read_run_facts,
    wants_to_resume,
)
from collabllm.training.method import Method
from collabllm.training.resuming import check_settings
from collabllm.training.run import Run
from collabllm.training.settings import TrainingSettings
from collabllm.training.sharding import find_sharding
from collabllm.training.train_utils import (
    get_timebased_filename,
    parse_secrets_runpod,
    use_hub_token,
)
from collabllm.training.trainer_config import (
    SECRET_FIELDS,
    check_trainer_fields,
    default_fields,
    read_trainer_fields,
    to_number,
    to_plain,
)

logger = logging.getLogger(__name__)


def start_run(method: Method, settings: TrainingSettings, fields: Mapping[str, Any]) -> Run:
    """Check logins, the Hub, the model and the flags, before any weights load.

    Args:
        method: The method of this run.
        settings: Settings of the method's class; they stay as they are.
        fields: The fields of TRL's config that the user set.

    Raises:
        ValueError: If a setting or the model does not fit.
    """
    fields = {name: to_plain(value) for name, value in fields.items()}
    if settings.parse_secrets_runpod:
        parse_secrets_runpod()
    config, dtype = check_flags(method, settings, fields)
    logger.info(
        "Base model in %s%s; the adapter and its optimizer in float32.",
        "4-bit NF4, computing in " if settings.load_in_4bit else "",
        str(dtype).removeprefix("torch."),
    )
    use_hub_token(config.hub_token)
    config.hub_token = None  # the trainer pickles its arguments into the output folder
    check_training_trackers(config.report_to)
    check_output_folder(config, settings.overwrite_output_dir)
    settings = _check_model(settings, config, bool(config.trust_remote_code))
    method.check(settings, config)  # again: max_length may be lower now
    tokenizer = load_tokenizer(
        settings.hf_model_path,
        adapter=settings.lora_path,
        chat_template=getattr(config, "chat_template_path", None),
        trust_remote_code=config.trust_remote_code,
        revision=settings.model_revision,
    )
    if hasattr(config, "chat_template_path"):
        config.chat_template_path = None  # the tokenizer has it: one template for all
    checkpoint = find_checkpoint(config.resume_from_checkpoint, config.output_dir)
    check_checkpoint(settings, checkpoint)
    given = {n: to_number(fields[n]) for n in fields if n not in SECRET_FIELDS + _NOT_KEPT}
    folder = Path(checkpoint).resolve().parent if checkpoint else Path(config.output_dir)
    if checkpoint or (config.resume_from_checkpoint and is_finished(folder)):
        check_settings(folder, settings, given, method)
    is_main = PartialState().is_main_process
    hub = _check_logins(settings, config) if is_main else None
    return Run(
        method=method,
        settings=settings,
        config=config,
        given=given,
        tokenizer=tokenizer,
        dtype=dtype,
        sharding=find_sharding(config),
        checkpoint=checkpoint,
        hub=hub,
        is_main=is_main,
    )


def check_flags(
    method: Method, settings: TrainingSettings, fields: Mapping[str, Any]
) -> tuple[Any, torch.dtype]:
    """Check what can be checked without data, model and logins.

    Returns:
        TRL's config, and the type of the weights.

    Raises:
        ValueError: If a flag is unknown, or does not fit.
    """
    check_trainer_fields(method.config_class, fields, asdict(settings))
    given = read_trainer_fields(method.config_class, fields)
    if not wants_to_resume(given.get("resume_from_checkpoint")):
        given.pop("resume_from_checkpoint", None)
    if not torch.cuda.is_available():
        PartialState(cpu=True)
    dtype, mixed = _choose_precision(settings, given)
    config = _build_config(method, settings, {**mixed, **given})
    method.check(settings, config)
    return config, dtype


_COUNTS = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
)
_HAVE_FLAGS = {
    "attn_implementation",
    "dtype",
    "quantization_config",
    "revision",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_auth_token",
}
_NOT_KEPT = ("output_dir", "run_name", "resume_from_checkpoint")


def _build_config(method: Method, settings: TrainingSettings, given: dict[str, Any]) -> Any:
    """Build TRL's config; a run that goes on keeps its name."""
    name = f"{method.name}-{settings.output_name_tag}"
    names = [get_timebased_filename(name)]
    broadcast_object_list(names)  # processes start in different seconds
    goes_on = given.get("resume_from_checkpoint")
    folder = name if goes_on == "auto" else names[0]
    output_dir = given.get("output_dir") or str(Path("outputs") / folder)
    output_dir = str(Path(output_dir).expanduser())
    if goes_on:
        names[0] = read_run_facts(Path(output_dir)).get("run_name", names[0])
    fields = {
        **default_fields(settings, output_dir, names[0], method.name),
        **method.config_fields(settings),
        **given,
        "output_dir": output_dir,
    }
    try:
        config = method.config_class(**fields)
    except ValueError as error:  # TRL's own check of what the user set
        raise ValueError(str(error)) from error
    for name in _COUNTS:
        if getattr(config, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(config, name)}.")
    doubled = sorted(_HAVE_FLAGS & set(config.model_init_kwargs or {}))
    if config.use_liger_kernel and not is_liger_kernel_available():
        raise ValueError("--use_liger_kernel needs a package: pip install liger-kernel.")
    if getattr(config, "sync_ref_model", False):
        raise ValueError(
            "--sync_ref_model needs a second model as the reference, and here the reference is the "
            "model without what this run trains. Leave it out."
        )
    if doubled:
        raise ValueError(
            f"--model_init_kwargs must not have {', '.join(doubled)}: give --dtype, "
            "--load_in_4bit, --attn_implementation, --model_revision or --trust_remote_code, and "
            "a token by HF_TOKEN, since the card shows these settings."
        )
    if config.n_gpu > 1:
        logger.warning(
            "%d GPUs are visible; this run trains on one. For all of them: accelerate launch "
            "--config_file configs/accelerate/multi_gpu.yaml --num_processes %d "
            "scripts/train_%s.py ...",
            config.n_gpu,
            config.n_gpu,
            method.name,
        )
        config._n_gpu = 1
    return config


def _choose_precision(
    settings: TrainingSettings, given: Mapping[str, Any]
) -> tuple[torch.dtype, dict[str, bool]]:
    """Choose the type of the weights, and mixed precision to fit it.

    Returns:
        The type, and `bf16` and `fp16` for TRL's config.
    """
    if settings.dtype != "auto":
        dtype = getattr(torch, settings.dtype)
    elif given.get("bf16"):
        dtype = torch.bfloat16
    elif given.get("fp16"):
        dtype = torch.float16
    elif given.get("bf16") is False:
        dtype = torch.float32
    else:
        dtype = choose_dtype()
    return dtype, {"bf16": dtype == torch.bfloat16, "fp16": dtype == torch.float16}


def _check_model(settings: TrainingSettings, config: Any, trust: bool) -> TrainingSettings:
    """Check model and adapter by their configurations; lower `max_length` to the context."""
    settings, context = check_model(settings, trust)
    if context and settings.max_length > context:
        logger.info(
            "max_length lowered from %d to the model's context, %d.", settings.max_length, context
        )
        settings = replace(settings, max_length=context)
        for name in ("max_length", "vllm_max_model_length"):
            if getattr(config, name, None):
                setattr(config, name, min(getattr(config, name), context))
    return settings


def _check_logins(settings: TrainingSettings, config: Any) -> HubTarget | None:
    """Check W&B and the Hub; nothing is created yet."""
    if settings.hf_model_path == BUNDLED_MODEL:
        logger.info("Model: the bundled %s (--hf_model_path for another).", BUNDLED_MODEL)
    if settings.hf_dataset_path == [BUNDLED_DATASET]:
        logger.info("Dataset: the bundled demo conversations (--hf_dataset_path for another).")
    facts = read_run_facts(Path(config.output_dir)) if config.resume_from_checkpoint else {}
    if "wandb" in config.report_to:
        prepare_wandb(config.output_dir)
    return check_hub(
        settings.push_to_hub,
        config.run_name,
        config.hub_model_id or facts.get("hub_model_id"),
        config.hub_private_repo,
    )
