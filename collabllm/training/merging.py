"""Merge an adapter into its 16-bit base model, and measure what merging changes."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabllm.data_processing.reply_tokens import end_ids
from collabllm.hub import find_base_revision, read_adapter_config
from collabllm.settings import load_config

logger = logging.getLogger(__name__)

_PROBE = "Could you help me plan a small party? I have not decided on the place yet."


@dataclass(frozen=True)
class MergeReport:
    """What merging changed, on a probe text, and what the adapter itself changes there."""

    difference: float
    """Largest absolute difference of a logit between adapter and merged model."""
    adapter_effect: float
    """The same between base and adapter: the yardstick."""
    same_top_tokens: float
    """Share of positions where adapter and merged model have the same most likely token."""

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"Rounding changed logits by at most {self.difference:.3g}, the adapter itself by "
            f"{self.adapter_effect:.3g}; the most likely token is the same at "
            f"{self.same_top_tokens:.0%} of the positions."
        )


def merge_adapter(adapter: str, output_dir: str, base: str | None = None) -> MergeReport:
    """Merge an adapter into its base in 16 bit (32 on a CPU), never in 4 bit, and save the result.

    Rounding to 4 bit after merging ruins the adapter, so the base is loaded anew. The merged model
    is saved in bf16, or fp16 on a GPU without bf16.

    Args:
        adapter: Folder or Hub id of the adapter.
        output_dir: Where the merged model goes; must not hold one yet.
        base: The base model; by default what the adapter's configuration names.

    Returns:
        How far the merged model is from the adapter, beside what the adapter changes.

    Raises:
        ValueError: If the base is unknown, or a 4-bit copy.
        FileNotFoundError: If there is no adapter.
        FileExistsError: If `output_dir` is not empty.
    """
    target = Path(output_dir).expanduser()
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty; choose another --output_dir.")
    revision = "main"
    if base is None:
        base, revision = _find_base(adapter, read_adapter_config(adapter))
    import torch  # only now, so that a wrong name is told at once

    from collabllm.models import choose_dtype, load_adapter, load_base_model, load_tokenizer

    dtype = None if torch.cuda.is_available() else torch.float32
    model = load_base_model(base, dtype=dtype, revision=revision)
    if getattr(model, "is_quantized", False):
        raise ValueError(f"{base} is a quantized copy; give the 16-bit base with --hf_model_path.")
    tokenizer = load_tokenizer(base, adapter=adapter, revision=revision)
    ids = tokenizer(_PROBE, return_tensors="pt").input_ids.to(model.device)  # [1, seq]
    with torch.no_grad():
        plain = model.eval()(input_ids=ids).logits.float()
    adapted = load_adapter(model, adapter).eval()
    with torch.no_grad():
        before = adapted(input_ids=ids).logits.float()
        merged = adapted.merge_and_unload()
        merged.to(torch.float16 if choose_dtype() == torch.float16 else torch.bfloat16)
        after = merged(input_ids=ids).logits.float()
    merged.generation_config.eos_token_id = end_ids(merged, tokenizer)
    merged.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return MergeReport(
        difference=float((before - after).abs().max()),
        adapter_effect=float((before - plain).abs().max()),
        same_top_tokens=float((before.argmax(-1) == after.argmax(-1)).float().mean()),
    )


def _find_base(adapter: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """Read the base's name and revision; the run's own configuration knows them best."""
    file = Path(adapter).expanduser() / "train_config.yaml"
    if file.is_file():
        settings = load_config(file)
        return str(settings["hf_model_path"]), str(settings.get("model_revision", "main"))
    name = config.get("base_model_name_or_path")
    if not name:
        raise ValueError(f"{adapter} does not name its base model; give it with --hf_model_path.")
    return str(name), find_base_revision(adapter, str(name))
