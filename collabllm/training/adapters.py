"""The LoRA adapter: on which layers it sits, checks before weights load, and its precision."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from trl import ModelConfig, get_peft_config

from collabllm.hub import find_adapter_file, find_base_revision, read_adapter_config
from collabllm.models import resolve_model_path
from collabllm.training.settings import DEFAULT_TARGETS, ModelSettings, TrainingSettings

logger = logging.getLogger(__name__)

_FUSED_TARGETS = ("qkv_proj", "o_proj")  # Phi 3
_WEIGHTS_FILE = "adapter_model.safetensors"
_MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_SHAPE = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}


def build_lora_config(settings: TrainingSettings, model: torch.nn.Module) -> LoraConfig:
    """Make the configuration of a fresh adapter, by TRL's own reading of these settings.

    Args:
        settings: Settings of the run.
        model: The base model, for its layers.
    """
    shared = {f.name for f in fields(ModelConfig)} & {f.name for f in fields(settings)}
    values = {
        name: getattr(settings, name) for name in shared if name.startswith(("lora_", "use_"))
    }
    values["lora_target_modules"] = None
    config = get_peft_config(ModelConfig(use_peft=True, **values))
    config.target_modules = choose_targets(model, settings)
    return config


def choose_targets(model: torch.nn.Module, settings: ModelSettings) -> list[str] | str:
    """Choose the layers of the adapter; in a multimodal model those of its language model only.

    Returns:
        Names of layers, or where others carry the same names a pattern for their full names.

    Raises:
        ValueError: If the model lacks one of them.
    """
    layers = [name for name, module in model.named_modules() if _is_linear(module)]
    inside = _language_layers(model, layers)
    found = {_last_part(name) for name in inside} - {"lm_head"}
    wanted = settings.lora_target_modules
    if wanted == ["all-linear"]:
        wanted = sorted(found)
    elif wanted is None:
        fits = set(_FUSED_TARGETS) <= found and not set(DEFAULT_TARGETS) <= found
        wanted = list(_FUSED_TARGETS if fits else DEFAULT_TARGETS)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{settings.hf_model_path} has no layers named {', '.join(missing)}. Its linear layers "
            f"are: {', '.join(sorted(found))}; name some by --lora_target_modules, or take "
            "all-linear."
        )
    chosen = [name for name in inside if _last_part(name) in wanted]
    if len(chosen) == sum(_last_part(name) in wanted for name in layers):
        return wanted
    parents = [name.rpartition(".")[0].replace(".", "/") for name in chosen]
    prefix = os.path.commonpath(parents).replace("/", ".")
    return rf"(.*\.)?{re.escape(prefix)}\.(.*\.)?({'|'.join(map(re.escape, wanted))})"


def _language_layers(model: torch.nn.Module, layers: Sequence[str]) -> list[str]:
    """Take the layers of the text decoder, without the encoders of images and sounds in it."""
    decoder = getattr(model, "get_decoder", lambda: model)()
    modules = dict(model.named_modules())
    own = next((f"{name}." for name, module in modules.items() if module is decoder and name), "")
    encoders = tuple(
        f"{name}."
        for name, module in modules.items()
        if isinstance(module, PreTrainedModel) and "text" not in module.input_modalities
    )
    return [name for name in layers if name.startswith(own) and not name.startswith(encoders)]


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def check_model(
    settings: TrainingSettings, trust_remote_code: bool = False
) -> tuple[TrainingSettings, int | None]:
    """Check a model's layers, and that the adapter to go on from fits them, without any weights.

    Returns:
        The settings, with the shape of the adapter to go on from, and the model's context length in
        tokens, None where its configuration does not say.

    Raises:
        ValueError: If it lacks a layer that the adapter goes on, or the adapter does not fit.
        FileNotFoundError: If there is no adapter to go on from.
        OSError: If there is no such model.
    """
    config, model = _build_empty(settings, trust_remote_code)
    if settings.lora_path:
        settings = _check_adapter(settings, model)
    else:
        choose_targets(model, settings)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return settings, None if context is None else int(context)


def _build_empty(settings: TrainingSettings, trust_remote_code: bool) -> tuple[Any, Any]:
    """Build the model without weights."""
    path = resolve_model_path(settings.hf_model_path)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(path, revision=settings.model_revision, **options)
    except (OSError, ValueError) as error:
        raise OSError(
            f"{settings.hf_model_path}: there is no such model, or it cannot be read "
            f"(--hf_model_path; a gated one needs HF_TOKEN): {str(error).splitlines()[0]}"
        ) from error
    attention = settings.attn_implementation
    if attention:
        options["attn_implementation"] = attention
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **options)
    except (ImportError, ValueError) as error:
        if not attention:
            raise
        raise ValueError(f"--attn_implementation {attention}: {error}") from error
    return config, model


def _check_adapter(settings: TrainingSettings, model: torch.nn.Module) -> TrainingSettings:
    """Read the adapter to go on from, and take over its rank and the like."""
    config = read_adapter_config(str(settings.lora_path))
    defaults = {f.name: f.default for f in fields(ModelSettings)}
    found = {name: config[key] for name, key in _SHAPE.items() if key in config}
    for name, value in found.items():
        asked = getattr(settings, name)
        if asked not in (defaults[name], value):
            raise ValueError(
                f"--{name} {asked} does not fit --lora_path {settings.lora_path}, which has "
                f"{value}; leave it out, or start a fresh adapter without --lora_path."
            )
    base = config.get("base_model_name_or_path") or "an unnamed model"
    _check_layers(settings, model, base)
    if not _same_model(base, settings.hf_model_path):
        logger.warning(
            "The adapter %s was trained on %s; this run puts it on %s, whose layers have the same "
            "names and sizes.",
            settings.lora_path,
            base,
            settings.hf_model_path,
        )
    trained = find_base_revision(settings.lora_path, settings.hf_model_path)
    if trained != settings.model_revision:
        logger.warning(
            "The adapter %s was trained on revision %s of its base; this run takes %s "
            "(--model_revision).",
            settings.lora_path,
            trained,
            settings.model_revision,
        )
    targets = config.get("target_modules")
    targets = [targets] if isinstance(targets, str) else targets
    asked = settings.lora_target_modules
    if asked and targets and sorted(asked) != sorted(targets):
        chosen = choose_targets(model, settings)
        if sorted([chosen] if isinstance(chosen, str) else chosen) != sorted(targets):
            raise ValueError(
                f"--lora_target_modules {' '.join(asked)} does not fit --lora_path "
                f"{settings.lora_path}, which is on {', '.join(sorted(targets))}; leave it out, or "
                "start a fresh adapter without --lora_path."
            )
    return replace(settings, lora_target_modules=targets, **found)


def check_checkpoint(settings: TrainingSettings, checkpoint: str | None) -> None:
    """Refuse to go on from a checkpoint whose adapter has another shape than this run's.

    Another `lora_alpha` would load, and count its weights otherwise than they were trained.

    Raises:
        ValueError: With what differs.
    """
    if checkpoint is None or not (Path(checkpoint) / "adapter_config.json").is_file():
        return
    config = read_adapter_config(checkpoint)
    shape = {name: (config.get(key), getattr(settings, name)) for name, key in _SHAPE.items()}
    layers = settings.lora_target_modules
    if layers and layers != ["all-linear"] and isinstance(config.get("target_modules"), list):
        shape["lora_target_modules"] = (sorted(config["target_modules"]), sorted(layers))
    for name, (found, asked) in shape.items():
        if found not in (None, asked):
            raise ValueError(
                f"--resume_from_checkpoint: {checkpoint} has {name} {found}, this run {asked}. "
                "Give what its train_config.yaml has, or start anew in another --output_dir."
            )


def _check_layers(settings: TrainingSettings, model: torch.nn.Module, base: str) -> None:
    """Compare the adapter's matrices with the layers that they go on.

    Raises:
        ValueError: If a layer is missing or has another size.
    """
    layers = dict(model.named_modules())
    with safe_open(find_adapter_file(str(settings.lora_path), _WEIGHTS_FILE), "pt") as weights:
        for key in weights.keys():  # noqa: SIM118, it is no dict
            match = _MATRIX.fullmatch(key)
            if not match:
                continue
            name, side = match.groups()
            size = weights.get_slice(key).get_shape()[1 if side == "A" else 0]
            attribute = "in_features" if side == "A" else "out_features"
            expected = getattr(layers.get(name), attribute, None)
            if name not in layers or expected not in (None, size):
                has = "is not there" if name not in layers else f"has {attribute} {expected}"
                raise ValueError(
                    f"--lora_path {settings.lora_path} was trained on {base}, where {name} has "
                    f"{attribute} {size}; in --hf_model_path {settings.hf_model_path} it {has}. "
                    "Give the model that the adapter was trained on."
                )


def _same_model(base: str, path: str) -> bool:
    names = {str(base).rstrip("/"), str(base).rstrip("/").rpartition("/")[2]}
    return (
        str(path) in names or resolve_model_path(path) in names or path.rpartition("/")[2] in names
    )


def trainable_values(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights that train, by name, before TRL rounds them to bf16."""
    return {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def restore_float32(model: torch.nn.Module, exact: Mapping[str, torch.Tensor]) -> None:
    """Turn the weights that train back to float32; TRL makes them bf16, which rounds updates away.

    Args:
        model: The model as TRL left it.
        exact: From `trainable_values`, for an adapter that is trained already.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = exact[name].to(parameter.device) if name in exact else parameter.data.float()
            parameter.data = value
