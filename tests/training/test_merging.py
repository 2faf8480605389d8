"""scripts/merge_adapter.py: the merged model answers as base and adapter do."""

import json

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from collabllm.models import load_adapter, load_base_model
from scripts.merge_adapter import main as merge
from scripts.train_sft import main as train


def test_the_merged_model_gives_the_adapters_logits_in_16_bit(
    sft_flags, tiny_model, tmp_path, capsys
):
    train(sft_flags())

    merge(["--lora_path", str(tmp_path / "run"), "--output_dir", str(tmp_path / "merged")])

    ids = torch.tensor([[5, 9, 2, 7]])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = load_base_model(str(tiny_model), dtype=torch.float32)
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        adapted = load_adapter(base, str(tmp_path / "run"))(input_ids=ids).logits
        logits = merged(input_ids=ids).logits.float()
    assert merged.dtype == torch.bfloat16
    torch.testing.assert_close(logits, adapted, rtol=0.05, atol=0.02)
    assert (adapted - plain).abs().max() > 5 * (logits - adapted).abs().max()
    assert "Rounding changed logits by at most 0.0" in capsys.readouterr().out


def test_merging_does_not_overwrite(sft_flags, tmp_path):
    with pytest.raises(FileExistsError, match="choose another --output_dir"):
        merge(["--lora_path", "x", "--output_dir", str(tmp_path.parent)])


def test_a_folder_without_an_adapter_is_refused(tiny_model, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no adapter"):
        merge(f"--lora_path {tiny_model} --output_dir {tmp_path}/m".split())


@pytest.mark.parametrize("told_by", ["train_config.yaml", "adapter_config.json"])
def test_an_adapter_is_merged_into_the_revision_it_was_trained_on(tmp_path, monkeypatch, told_by):
    config, settings = {"base_model_name_or_path": "org/m"}, {"hf_model_path": "org/m"}
    if told_by == "train_config.yaml":
        settings["model_revision"] = "v2"
        (tmp_path / "train_config.yaml").write_text(yaml.safe_dump(settings))
    else:
        config["revision"] = "v2"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))

    def load(base, **options):
        raise RuntimeError(f"{base} {options['revision']}")

    monkeypatch.setattr("collabllm.models.load_base_model", load)
    with pytest.raises(RuntimeError, match="org/m v2"):
        merge(["--lora_path", str(tmp_path), "--output_dir", str(tmp_path / "merged")])
