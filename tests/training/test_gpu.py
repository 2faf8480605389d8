"""What only a GPU shows; each test is skipped by name without one."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers.utils import is_flash_attn_2_available

from collabllm.training.dpo import DPO
from scripts.train_sft import main
from tests.training.test_resume import start as start_process

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_an_nf4_step_trains_a_float32_adapter_on_a_16_bit_base(sft_flags, start, tmp_path):
    run, data = start(sft_flags())
    trainer = run.method.build_trainer(run, data)

    trainer.train()

    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert run.dtype in (torch.bfloat16, torch.float16)
    first, *_, last = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    assert last < first


@pytest.mark.skipif(not is_flash_attn_2_available(), reason="needs flash-attn")
def test_flash_attention_is_taken_and_packing_trains_the_same_tokens(sft_flags, start):
    run, data = start(sft_flags(packing="true"))
    trainer = run.method.build_trainer(run, data)

    assert trainer.model.config._attn_implementation == "flash_attention_2"
    batches = list(trainer.get_train_dataloader())
    assert (
        sum(int((b["labels"] != -100).sum()) for b in batches) == data.preflight.num_trained_tokens
    )


def test_dpo_from_an_adapter_starts_at_its_reference(sft_flags, start, tmp_path):
    main(sft_flags(output_dir=tmp_path / "sft"))
    run, data = start(sft_flags(lora_path=tmp_path / "sft", lora_r=None), DPO())
    trainer = run.method.build_trainer(run, data)

    weights = dict(trainer.model.named_parameters())
    for name, expected in load_file(tmp_path / "sft/adapter_model.safetensors").items():
        policy = weights[f"{name.removesuffix('.weight')}.default.weight"]
        assert torch.equal(policy.cpu(), expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("preset", ["multi_gpu.yaml", "fsdp.yaml"])
def test_two_gpus_train(sft_flags, tmp_path, preset):
    launcher = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--config_file")
    process = start_process(sft_flags(), (*launcher, f"configs/accelerate/{preset}"))
    output = process.communicate(timeout=300)[0]

    assert process.returncode == 0, output
    assert json.loads((tmp_path / "run/metrics.json").read_text())["train"]["train_loss"] > 0
