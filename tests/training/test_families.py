"""scripts/train_sft.py on a tiny model of every family, with its kind of template."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from scripts.train_sft import main
from tests.training.tiny_models import FAMILIES, save_family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_and_its_adapter_loads_with_plain_peft(family, sft_flags, tmp_path):
    model_path = save_family(family, tmp_path / "model")

    main(sft_flags(hf_model_path=model_path, max_steps=2, lora_dropout=0))

    weights = load_file(tmp_path / "run/adapter_model.safetensors")
    assert weights
    assert all(weight.abs().max() > 0 for weight in weights.values())
    assert not [name for name in weights if "vision" in name]
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    ids = torch.tensor([[5, 9, 2, 7]])
    with torch.no_grad():
        plain = base(input_ids=ids).logits.clone()
        adapted = PeftModel.from_pretrained(base, tmp_path / "run").eval()(input_ids=ids).logits
    assert (adapted - plain).abs().max() > 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    rows, replies = metrics["data"]["training rows"], metrics["data"]["training replies"]
    one_row_a_turn = family in ("qwen3", "gpt_oss")  # their history differs from the last reply
    assert metrics["data"]["turns"] == ("every" if one_row_a_turn else "merged")
    assert replies == (rows if one_row_a_turn else 2 * rows)
