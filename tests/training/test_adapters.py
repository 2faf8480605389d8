"""What the flags of the adapter do to it: layers, scale, magnitudes."""

import json
import math
import re

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from collabllm.training.adapters import choose_targets
from collabllm.training.settings import SFTSettings
from scripts.train_sft import main

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}


def layers_of(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    return {name.split(".")[-3] for name in weights if name.endswith("lora_B.weight")}


@pytest.mark.parametrize(
    ("flags", "layers"),
    [
        ([], ATTENTION),
        (["all-linear"], ATTENTION | {"gate_proj", "up_proj", "down_proj"}),
        (["q_proj", "down_proj"], {"q_proj", "down_proj"}),
    ],
)
def test_the_adapter_is_on_the_layers_that_are_named(sft_flags, tmp_path, flags, layers):
    named = ["--lora_target_modules", *flags] if flags else []

    main([*sft_flags(max_steps=1), *named])

    assert layers_of(tmp_path / "run") == layers


def test_encoders_of_images_and_sounds_inside_a_text_decoder_get_no_adapter():
    config = Phi4MultimodalConfig(
        num_hidden_layers=2,
        vision_config={"num_hidden_layers": 1},
        audio_config={"num_blocks": 1},
    )
    with torch.device("meta"):
        model = Phi4MultimodalForCausalLM(config)

    chosen = choose_targets(model, SFTSettings())

    layers = [name for name, _ in model.named_modules() if re.fullmatch(chosen, name)]
    assert layers == [
        f"model.layers.{idx}.self_attn.{name}" for idx in (0, 1) for name in ("o_proj", "qkv_proj")
    ]


def test_rslora_scales_by_the_root_of_the_rank(sft_flags, tiny_model, tmp_path):
    main(sft_flags(max_steps=1, lora_alpha=8, use_rslora="true"))

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(base, tmp_path / "run")
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert layer.scaling == {"default": 8 / math.sqrt(4)}


def test_dora_trains_a_magnitude_of_every_output(sft_flags, tmp_path):
    main(sft_flags(max_steps=1, use_dora="true"))

    weights = load_file(tmp_path / "run/adapter_model.safetensors")
    magnitudes = [name for name in weights if name.endswith("q_proj.lora_magnitude_vector")]
    assert [weights[name].shape for name in magnitudes] == [(64,)] * 2
    assert json.loads((tmp_path / "run/adapter_config.json").read_text())["use_dora"] is True
