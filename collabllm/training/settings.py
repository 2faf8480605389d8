"""Settings of a training run: model and adapter, data, the run, and what one method adds."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from collabllm.data_processing.dataset_utils import DEFAULT_SYSTEM_PROMPT, Turns
from collabllm.data_processing.loading import BUNDLED_DATASET
from collabllm.data_processing.splitting import check_eval_ratio
from collabllm.hub import BUNDLED_MODEL
from collabllm.settings import Settings, setting

DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(kw_only=True)
class ModelSettings(Settings):
    """The base model and the adapter; names and meanings are those of TRL's ModelConfig."""

    _argument_group_name = "model and adapter"

    hf_model_path: str = setting(
        BUNDLED_MODEL, "Hub id, local folder, or the bundled model", metavar="MODEL"
    )
    lora_path: str | None = setting(
        None, "adapter to go on from (folder or Hub id), instead of a fresh one", metavar="ADAPTER"
    )
    model_revision: str = setting("main", "branch, tag or commit of a Hub model")
    load_in_4bit: bool = setting(True, "quantize the base model to NF4 (QLoRA)")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting(
        "auto", "type of the base model's weights; auto: what this device computes fastest in"
    )
    attn_implementation: str | None = setting(
        None,
        "attention: sdpa, eager, flash_attention_2 or a kernel of the Hub",
    )
    lora_r: int = setting(16, "rank of the adapter", least=1)
    lora_alpha: int = setting(
        16, "scale of the adapter: its weights count lora_alpha / lora_r times", least=1
    )
    lora_dropout: float = setting(0.1, "dropout of the adapter")
    lora_target_modules: list[str] | None = setting(
        None,
        "layers that get the adapter: names, or all-linear; default: the attention's q, k, v, o",
        metavar="NAME",
    )
    use_rslora: bool = setting(False, "scale the adapter by lora_alpha / sqrt(lora_r)")
    use_dora: bool = setting(False, "weight-decomposed adapter (DoRA)")


@dataclass(kw_only=True)
class DataSettings(Settings):
    """What is trained on, and what is held out."""

    _argument_group_name = "data"

    hf_dataset_path: list[str] = setting(
        [BUNDLED_DATASET],
        "Hub id, folder, .jsonl, .json or .parquet file, or the bundled demo; several are joined",
        metavar="DATASET",
    )
    dataset_split: str = setting("train", "split of a Hub dataset or a folder")
    dataset_config: str | None = setting(None, "configuration of datasets of the Hub")
    dataset_weights: list[float] | None = setting(
        None,
        "with several datasets: how often an epoch goes over each; 0.5 takes half of its "
        "conversations",
        metavar="WEIGHT",
    )
    skip_bad_rows: bool = setting(False, "leave malformed rows out, and report their number")
    system_prompt: str = setting(
        DEFAULT_SYSTEM_PROMPT,
        'system message of every conversation that has none; "" for none',
        metavar="TEXT",
    )
    score_column: str = setting(
        "score", "column to rank replies by; a dot goes into a dict, as in rewards.bleu"
    )
    eval_ratio: float = setting(0.1, "share of tasks held out, in [0, 1)")
    split_by: str = setting("single_turn_prompt", "column that names a row's task")
    max_eval_pairs: int = setting(
        500,
        "most held-out conversations whose loss is measured, and most turns whose best reply is "
        "ranked against the worst; 0: all conversations, and no ranking",
        least=0,
    )
    num_sample_replies: int = setting(
        2,
        "held-out conversations that the model answers before and after training, to be shown",
        least=0,
    )
    allow_truncation: bool = setting(
        False, "train even if max_length cuts more than 5% of the replies"
    )


@dataclass(kw_only=True)
class RunSettings(Settings):
    """The run itself; every other flag is a field of TRL's config."""

    _argument_group_name = "run"

    output_name_tag: str = setting("run", "part of the run's name", metavar="TAG")
    learning_rate: float = setting(2e-4, "peak learning rate")
    batch_size: int = setting(4, "rows per device and step", least=1)
    max_length: int = setting(4096, "most tokens of a row; turns beyond it are cut", least=1)
    push_to_hub: Literal["auto", "true", "false"] = setting(
        "auto", "push the adapter to a private repository; auto: when a token is found"
    )
    parse_secrets_runpod: bool = setting(False, "take tokens from RunPod's secrets")
    overwrite_output_dir: bool = setting(False, "start anew in a folder that holds a run")


@dataclass(kw_only=True)
class TrainingSettings(RunSettings, DataSettings, ModelSettings):
    """What every method of training shares."""

    def __post_init__(self) -> None:
        """Check what can be checked without loading anything.

        Raises:
            ValueError: If a value is out of range.
        """
        if isinstance(self.hf_dataset_path, str | Path):
            self.hf_dataset_path = [str(self.hf_dataset_path)]
        self.hf_dataset_path = [str(path) for path in self.hf_dataset_path]
        self.hf_model_path = _without_tilde(self.hf_model_path)
        self.lora_path = None if self.lora_path is None else _without_tilde(self.lora_path)
        if isinstance(self.lora_target_modules, str):
            self.lora_target_modules = [self.lora_target_modules]
        if isinstance(self.push_to_hub, bool):
            self.push_to_hub = "true" if self.push_to_hub else "false"
        super().__post_init__()
        weights, paths = self.dataset_weights or [], self.hf_dataset_path
        fits = len(weights) == len(paths) and all(0 < weight < math.inf for weight in weights)
        if weights and not fits:
            raise ValueError(
                f"dataset_weights must be one number above 0 for each of {len(paths)} datasets, "
                f"got {weights}."
            )
        check_eval_ratio(self.eval_ratio)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}.")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}.")

    @property
    def dataset(self) -> str:
        """Name of the dataset for reports."""
        return ", ".join(self.hf_dataset_path)


@dataclass(kw_only=True)
class SFTSettings(TrainingSettings):
    """Settings of supervised fine-tuning."""

    _argument_group_name = "supervised fine-tuning"

    lower_bound_metric: float | None = setting(
        None, "lowest score of a reply to train on; default: the best reply of every turn"
    )
    lower_bound_percentile: float | None = setting(
        None,
        "instead of it: this percentile of the best replies' scores, in [0, 100]",
        least=0,
        most=100,
    )
    turns: Turns = setting("merged", "merged: one row per conversation; every: one row per turn")
    first_token_weight: float = setting(
        1.0,
        "weight in the loss of the first token of every reply, which often decides whether the "
        "reply asks or answers",
        least=0,
    )


@dataclass(kw_only=True)
class DPOSettings(TrainingSettings):
    """Settings of preference training."""

    _argument_group_name = "preference training"

    learning_rate: float = setting(5e-6, "peak learning rate")
    min_score_gap: float = setting(0.0, "smallest score gap of a pair", least=0)
    min_confidence: float | None = setting(
        None,
        "instead of it: smallest probability that the chosen reply is better, from the rewards of "
        "the sampled futures",
    )


def _without_tilde(path: str | Path) -> str:
    """Return a path as adapters and cards name it: other programs know no `~`."""
    return str(Path(path).expanduser()) if str(path).startswith("~") else str(path)


def split_arguments(
    settings: type, arguments: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keyword arguments into those of the settings and those of the trainer's config."""
    own = {f.name for f in fields(settings) if f.init}
    return (
        {name: value for name, value in arguments.items() if name in own},
        {name: value for name, value in arguments.items() if name not in own},
    )
