"""A tiny random model and a small dataset, so that whole training runs take seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.tokenizers_for_tests import make_tokenizer


def save_tiny_model(folder: Path, family: str = "chatml", **config: Any) -> Path:
    """Save a random two-layer Llama with a tokenizer of `tokenizers_for_tests`."""
    tokenizer = make_tokenizer(family)
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        **config,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def write_dataset(path: Path) -> Path:
    """Write 24 two-turn conversations of 12 tasks, three candidates a turn."""
    rows = []
    for conv_id in range(24):
        task = conv_id % 12
        prompt = [{"role": "user", "content": f"help with task {task}"}]
        for turn in range(2):
            best = f"which {task} and {turn}?"
            for reply, score in ((best, 0.9), ("maybe", 0.4), ("once upon a time", 0.1)):
                rows.append(
                    {
                        "prompt": prompt,
                        "completion": reply,
                        "conv_id": conv_id,
                        "score": score,
                        "single_turn_prompt": f"task {task}",
                        "single_turn_completion": "done",
                    }
                )
            prompt = [
                *prompt,
                {"role": "assistant", "content": best},
                {"role": "user", "content": f"it is {conv_id}"},
            ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "small.jsonl")


@pytest.fixture
def sft_flags(tiny_model: Path, small_dataset: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Flags of a short offline run; keyword arguments add to them or replace them."""

    def flags(**changes: Any) -> list[str]:
        settings: dict[str, Any] = {
            "hf_model_path": tiny_model,
            "hf_dataset_path": small_dataset,
            "output_dir": tmp_path / "run",
            "learning_rate": 1e-2,
            "max_length": 512,
            "max_steps": 4,
            "eval_ratio": 0.3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "push_to_hub": "false",
            "lora_r": 4,
            "num_sample_replies": 1,
            **changes,
        }
        words: list[str] = []
        for name, value in settings.items():
            if value is not None:
                words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words

    return flags


@pytest.fixture
def start() -> Callable[..., tuple[Any, Any]]:
    """Start a run from flags, as far as its data; no weights load."""

    def start_from(argv: list[str], method: Any = None) -> tuple[Any, Any]:
        from collabllm.training.sft import SFT
        from collabllm.training.start import start_run
        from scripts import train_dpo, train_sft

        script = train_dpo if method else train_sft
        settings, fields = script.parse_args(argv)
        run = start_run(method or SFT(), settings, fields)
        return run, run.method.prepare_data(run.settings, run.tokenizer, run.config)

    return start_from


@pytest.fixture(scope="session")
def brief_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that ends a reply with about every fourth token."""
    folder = save_tiny_model(tmp_path_factory.mktemp("brief"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.2)  # a direction that all hidden states share
        model.lm_head.weight[model.config.eos_token_id] = 4.5 / model.config.hidden_size
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def grpo_flags(sft_flags: Callable[..., list[str]], brief_model: Path) -> Callable[..., list[str]]:
    """Flags of two short online steps; keyword arguments add to them or replace them."""

    def flags(**changes: Any) -> list[str]:
        settings: dict[str, Any] = {
            "hf_model_path": brief_model,
            "hf_dataset_path": "demo",
            "split_by": "single_turn_metadata.kind",
            "max_steps": 2,
            "batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 8,
            "max_length": 1024,
            "window": 1,
            "num_samples": 1,
            "weights": '{"repetition": -1.0, "facts_elicited": 1.0}',
            "watched": "token_amount",
            "token_penalty": 0.01,
            "max_turns": 1,
            "max_eval_tasks": 2,
            "sample_steps": 2,
            "load_in_4bit": "false",
            "dtype": "float32",
            **changes,
        }
        return sft_flags(**settings)

    return flags


@pytest.fixture
def start_grpo() -> Callable[..., tuple[Any, Any]]:
    """Start an online run from flags, as far as its data; no weights load."""

    def start_from(argv: list[str]) -> tuple[Any, Any]:
        from collabllm.training.grpo import GRPO
        from collabllm.training.start import start_run
        from scripts.train_grpo import parse_args

        settings, fields = parse_args(argv)
        run = start_run(GRPO(), settings, fields)
        return run, run.method.prepare_data(run.settings, run.tokenizer, run.config)

    return start_from


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the tests away from the accounts of whoever runs them."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
