"""A tiny random model and a small dataset, so that whole training runs take seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tokenizers_for_tests import make_tokenizer


def save_tiny_model(folder: Path, **config: Any) -> Path:
    """Save a random two-layer Llama with a ChatML tokenizer."""
    tokenizer = make_tokenizer("chatml")
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


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the tests away from the accounts of whoever runs them."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
