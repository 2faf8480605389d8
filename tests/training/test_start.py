"""What is decided before weights load: precision, sharding, devices, template, folder, adapter."""

import json
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoConfig

from collabllm import models
from collabllm.training import data
from collabllm.training.checkpoints import (
    clear_folder,
    find_checkpoint,
    is_finished,
    list_checkpoints,
    own_folder,
)
from collabllm.training.data import TrainingData
from collabllm.training.dpo import DPO
from collabllm.training.preflight import Preflight
from collabllm.training.schedule import count_steps, describe_steps, plan_evaluation
from collabllm.training.settings import SFTSettings
from collabllm.training.sft import SFT
from collabllm.training.sharding import Sharding, find_sharding
from collabllm.training.start import start_run
from scripts import train_dpo
from scripts.train_sft import main, parse_args

ROOT = Path(__file__).parents[2]
LAUNCHES = {
    "multi_gpu.yaml": Sharding(),
    "fsdp.yaml": Sharding("fsdp", 2),
    "deepspeed_zero3.yaml": Sharding("deepspeed"),
}


def launch_environment(file: Path) -> dict[str, str]:
    """Return what `accelerate launch --config_file` puts into the environment of a process."""
    from accelerate.commands.launch import _validate_launch_command

    words = ["--config_file", str(file), "--num_processes", "2", "script.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        return prepare_deepspeed_cmd_env(args)[1]
    return prepare_multi_gpu_env(args)


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_launch_preset_shards_as_it_says(name, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    environ = launch_environment(ROOT / "configs/accelerate" / name)

    assert find_sharding(SimpleNamespace(deepspeed=None, fsdp=None), environ) == LAUNCHES[name]
    assert environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_every_launch_preset_is_known_here_and_names_no_number_of_gpus():
    files = list((ROOT / "configs/accelerate").glob("*.yaml"))

    assert {file.name for file in files} == set(LAUNCHES)
    assert not [file for file in files if "num_processes:" in file.read_text()]


def test_the_adapter_stays_float32_where_that_is_possible():
    assert Sharding().keeps_float32
    assert Sharding("fsdp", 2).keeps_float32
    assert not Sharding("fsdp", 1).keeps_float32
    assert not Sharding("deepspeed").keeps_float32


def test_a_sharded_model_has_no_device_map_and_stores_4bit_weights_in_the_type_of_the_rest(
    tiny_model, monkeypatch
):
    seen = {}

    def from_pretrained(path, **options):
        seen.update(options)
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    models.load_base_model(str(tiny_model), use_4bit=True, dtype=torch.bfloat16, sharded=True)

    assert "device_map" not in seen
    assert "attn_implementation" not in seen
    assert seen["quantization_config"].bnb_4bit_quant_storage == torch.bfloat16
    models.load_base_model(str(tiny_model), use_4bit=True)
    assert seen["device_map"] == {"": "cpu"}
    assert seen["quantization_config"].bnb_4bit_quant_storage == torch.uint8


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "expected"),
    [
        (True, True, torch.bfloat16),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (False, False, torch.float32),
    ],
)
def test_a_cpu_computes_in_what_it_is_fast_in(monkeypatch, amx, avx512_bf16, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512_bf16)

    assert models.choose_dtype() == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_only_emulates_bf16_takes_fp16(monkeypatch, native, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )

    assert models.choose_dtype() == expected


def start(flags):
    return start_run(SFT(), *parse_args(flags))


def test_precision_flags_decide_weights_and_mixed_precision(sft_flags, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        run = start(sft_flags(bf16="true"))
    assert (run.dtype, run.config.bf16, run.config.fp16) == (torch.bfloat16, True, False)
    assert "4-bit NF4, computing in bfloat16; the adapter and its optimizer in float32" in (
        caplog.text
    )

    run = start(sft_flags(dtype="float32"))
    assert (run.dtype, run.config.bf16) == (torch.float32, False)

    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    assert start(sft_flags()).config.bf16 is True
    assert start(sft_flags(bf16="false")).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "dtype", "native_bf16", "expected"),
    [
        ("llama", torch.bfloat16, True, "flash_attention_2"),
        ("gemma2", torch.float16, True, "flash_attention_2"),
        ("llama", torch.float32, True, None),  # it computes in 16 bit only
        ("llama", torch.float16, False, None),  # T4, V100
        ("gpt_oss", torch.bfloat16, True, None),  # has flash attention, but not this one
    ],
)
def test_flash_attention_is_taken_where_it_works(
    tmp_path, monkeypatch, kind, dtype, native_bf16, expected
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: native_bf16)
    monkeypatch.setattr(models, "is_flash_attn_2_available", lambda: True)
    AutoConfig.for_model(kind).save_pretrained(tmp_path)

    assert models._choose_attention(str(tmp_path), dtype, {}) == expected


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"attn_implementation": "quick"}, "--attn_implementation quick: .*sdpa"),
        ({"gradient_accumulation_steps": 0}, "--gradient_accumulation_steps must be at least 1"),
        ({"use_liger_kernel": "true"}, "--use_liger_kernel needs a package: pip install liger"),
        ({"model_init_kwargs": '{"dtype": "auto"}'}, "must not have dtype: give --dtype"),
        ({"model_init_kwargs": '{"token": "hf_x"}'}, "must not have token: .*a token by HF_TOKEN"),
    ],
)
def test_what_would_fail_with_the_weights_or_the_first_step_ends_before(sft_flags, flags, says):
    with pytest.raises(ValueError, match=says):
        start(sft_flags(**flags))


def test_what_the_user_sets_reaches_the_loading_of_tokenizer_and_model(sft_flags, monkeypatch):
    tokenizers, weights = [], {}
    load = models.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        models.AutoTokenizer,
        "from_pretrained",
        lambda path, **options: tokenizers.append(options) or load(path),
    )
    kwargs = {"model_revision": "v1", "trust_remote_code": "true", "load_in_4bit": "false"}
    run = start(sft_flags(**kwargs, model_init_kwargs='{"use_kernels": true}'))
    loaded = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    monkeypatch.setattr(
        models.AutoModelForCausalLM,
        "from_pretrained",
        lambda path, **given: weights.update(given) or loaded,
    )
    run.load_model()

    shared = {"trust_remote_code": True, "revision": "v1"}
    assert tokenizers == [shared]
    assert shared.items() <= weights.items()
    assert weights["use_kernels"] is True
    assert run.config.ddp_find_unused_parameters is False


def test_several_visible_gpus_without_a_launcher_train_on_one(sft_flags, monkeypatch, caplog):
    from trl import SFTConfig

    monkeypatch.setattr(SFTConfig, "n_gpu", property(lambda self: self._n_gpu or 4))

    run = start(sft_flags())

    assert "4 GPUs are visible" in caplog.text
    assert "accelerate launch --config_file configs/accelerate/multi_gpu.yaml" in caplog.text
    assert run.config.n_gpu == 1


def test_one_template_is_trained_and_saved(sft_flags, tmp_path):
    file = tmp_path / "other.jinja"
    file.write_text(
        "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
    )

    run = start(sft_flags(chat_template_path=file))
    data = run.method.prepare_data(run.settings, run.tokenizer, run.config)

    assert "[assistant]<<" in data.preflight.examples[0]
    assert run.tokenizer.chat_template == file.read_text()
    assert run.config.chat_template_path is None


def test_a_folder_that_holds_a_run_is_refused_before_anything_loads(sft_flags, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/adapter_model.safetensors").touch()

    for resume in (None, "false"):
        with pytest.raises(FileExistsError, match="holds a run .*--overwrite_output_dir"):
            main(sft_flags(resume_from_checkpoint=resume))
    start(sft_flags(overwrite_output_dir=True))


def test_an_overwritten_run_leaves_no_checkpoint_to_resume_from(sft_flags, tmp_path):
    main(sft_flags(save_strategy="steps", save_steps=1, max_steps=3))
    main(sft_flags(save_strategy="steps", save_steps=1, max_steps=1, overwrite_output_dir=True))

    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-1"]


def test_an_overwritten_run_that_is_killed_leaves_no_results_of_the_one_before(
    sft_flags, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    main(sft_flags(max_steps=1))
    assert is_finished(folder)

    monkeypatch.setattr("collabllm.training.run._train", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        main(sft_flags(max_steps=2, overwrite_output_dir=True))

    assert not is_finished(folder)
    assert not list(folder.glob("adapter_*"))
    assert not (folder / "README.md").exists()


def test_an_overwritten_adapter_stays_where_the_run_starts_from_it(tmp_path):
    for name in ("adapter_model.safetensors", "adapter_config.json", "metrics.json"):
        (tmp_path / name).touch()

    clear_folder(tmp_path, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    clear_folder(tmp_path, "org/adapter")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_training_writes_is_refused(sft_flags, tmp_path):
    with (
        own_folder(tmp_path / "run"),
        pytest.raises(FileExistsError, match="another training is writing this folder; wait"),
    ):
        main(sft_flags())

    assert not (tmp_path / "run").exists()
    main(sft_flags(max_steps=1))


def test_machines_that_share_the_folder_prepare_the_data_once(tmp_path, monkeypatch):
    rows = Dataset.from_dict({"input_ids": [[1]], "labels": [[1]]})
    prepared = []

    def prepare():
        prepared.append(1)
        return TrainingData(rows, Preflight("replies"), {})

    stamp = []
    monkeypatch.setattr(data, "broadcast_object_list", lambda given: given.__setitem__(0, stamp[0]))
    machines = [SimpleNamespace(is_main_process=rank == 0) for rank in (0, 1)]
    for machine in machines:
        machine.is_local_main_process = True
        machine.main_process_first = machine.local_main_process_first = nullcontext
    for run, folders, times in (("1", ("shared", "shared"), 1), ("2", ("shared", "own"), 2)):
        prepared.clear()
        stamp[:] = [run]
        for machine, folder in zip(machines, folders, strict=True):
            monkeypatch.setattr(data, "PartialState", lambda machine=machine: machine)
            assert data.prepare_once(prepare, tmp_path / folder).train[0]["input_ids"] == [1]
        assert len(prepared) == times


def save_adapter(folder, layer="model.layers.0.self_attn.q_proj", size=64, **config):
    folder.mkdir(exist_ok=True)
    name = f"base_model.model.{layer}"
    weights = {
        f"{name}.lora_A.weight": torch.zeros(8, size),
        f"{name}.lora_B.weight": torch.zeros(size, 8),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"r": 8, "lora_alpha": 16, "base_model_name_or_path": "org/other", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_a_missing_or_unfit_adapter_is_named_before_weights_load(sft_flags, tmp_path):
    with pytest.raises(FileNotFoundError, match="./none: there is no adapter"):
        start(sft_flags(lora_path="./none"))
    adapter = save_adapter(tmp_path / "adapter")
    with pytest.raises(ValueError, match="--lora_r 4 does not fit .* which has 8"):
        start(sft_flags(lora_path=adapter))
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no adapter \(adapter_model.safetensors\)"):
        start(sft_flags(lora_path=adapter, lora_r=None))


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"size": 32}, "has in_features 32; in --hf_model_path .* it has in_features 64"),
        ({"layer": "model.layers.2.self_attn.q_proj"}, "in_features 64; in .* it is not there"),
    ],
)
def test_an_adapter_of_a_model_of_another_shape_is_refused(sft_flags, tmp_path, weights, says):
    adapter = save_adapter(tmp_path / "adapter", **weights)

    with pytest.raises(ValueError, match=rf"was trained on org/other, where model.*{says}\. Give"):
        start(sft_flags(lora_path=adapter, lora_r=None))


def test_an_adapter_brings_its_rank_and_another_name_of_its_base_is_said(
    sft_flags, tmp_path, caplog
):
    run = start(sft_flags(lora_path=save_adapter(tmp_path / "adapter"), lora_r=None))

    assert run.settings.lora_r == 8
    assert "was trained on org/other; this run puts it on" in caplog.text
    assert "same names and sizes" in caplog.text


def test_other_layers_than_the_adapters_are_refused(sft_flags, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", target_modules=["q_proj"])
    flags = {"lora_path": adapter, "lora_r": None}

    with pytest.raises(ValueError, match="--lora_target_modules v_proj does not fit --lora_path"):
        start(sft_flags(lora_target_modules="v_proj", **flags))

    start(sft_flags(lora_target_modules="q_proj", **flags))


def test_an_adapter_brings_the_template_it_was_trained_with(sft_flags, tmp_path):
    adapter = save_adapter(tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("of the adapter")
    (tmp_path / "own.jinja").write_text("of the user")
    flags = {"lora_path": adapter, "lora_r": None}

    for method, parse in ((SFT(), parse_args), (DPO(), train_dpo.parse_args)):
        run = start_run(method, *parse(sft_flags(**flags)))
        assert run.tokenizer.chat_template == "of the adapter"
    run = start(sft_flags(chat_template_path=tmp_path / "own.jinja", **flags))
    assert run.tokenizer.chat_template == "of the user"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"lora_r": 8}, "has lora_r 4, this run 8"),
        ({"lora_alpha": 32}, "has lora_alpha 16, this run 32.*train_config.yaml"),
        ({"lora_target_modules": "q_proj"}, r"has lora_target_modules \['k_proj', .*\['q_proj'\]"),
    ],
)
def test_a_checkpoint_of_an_adapter_of_another_shape_is_refused(sft_flags, tmp_path, flags, says):
    checkpoint = tmp_path / "run/checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    config = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "k_proj", "o_proj"]}
    (checkpoint / "adapter_config.json").write_text(json.dumps(config))

    assert start(sft_flags(resume_from_checkpoint="auto")).checkpoint == str(checkpoint)
    with pytest.raises(ValueError, match=says):
        start(sft_flags(resume_from_checkpoint="auto", **flags))


def test_a_missing_model_is_named(sft_flags):
    with pytest.raises(OSError, match="org/no-such-model: there is no such "):
        start(sft_flags(hf_model_path="org/no-such-model"))


def test_only_numbered_folders_are_checkpoints(tmp_path):
    for name in ("checkpoint-best", "checkpoint-12", "checkpoint-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")

    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-12"]
    assert find_checkpoint("true", str(tmp_path)) == str(tmp_path / "checkpoint-12")


def test_auto_starts_afresh_or_goes_on_in_a_folder_without_a_time(sft_flags, tmp_path):
    assert find_checkpoint("auto", str(tmp_path)) is None

    run = start(sft_flags(output_dir=None, output_name_tag="x", resume_from_checkpoint="auto"))

    assert run.config.output_dir == "outputs/sft-x"


def config(**changes):
    fields = {
        "max_steps": -1,
        "per_device_train_batch_size": 4,
        "world_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
        "learning_rate": 2e-4,
        "eval_strategy": "no",
        "save_strategy": "no",
        "metric_for_best_model": None,
    }
    return SimpleNamespace(**{**fields, **changes})


def test_steps_are_counted_over_devices_accumulation_and_epochs():
    assert count_steps(17, config()) == 6  # 3 batches of 8, 2 steps an epoch
    assert count_steps(17, config(max_steps=5)) == 5
    assert "TOO FEW" in describe_steps(12, config(learning_rate=2e-5))
    assert "TOO FEW" not in describe_steps(800, config())


def test_a_long_run_evaluates_every_tenth_of_its_steps_and_a_short_one_does_not():
    long, short, own = config(max_steps=500), config(max_steps=50), config(max_steps=500)
    plan_evaluation(long, [], 1000, True)
    plan_evaluation(short, [], 1000, True)
    plan_evaluation(own, ["eval_strategy", "save_steps"], 1000, True)

    assert (long.eval_strategy, long.eval_steps, long.save_steps) == ("steps", 0.1, 0.1)
    assert (long.metric_for_best_model, long.greater_is_better) == ("eval_loss", False)
    assert short.eval_strategy == own.eval_strategy == "no"


@pytest.mark.parametrize("max_steps", [50, 500])
def test_steps_to_evaluate_at_are_enough_to_evaluate(max_steps):
    asked = config(max_steps=max_steps, eval_steps=20)
    plan_evaluation(asked, ["eval_steps"], 1000, True)

    assert (asked.eval_strategy, asked.eval_steps) == ("steps", 20)


def test_evaluating_without_held_out_data_is_refused():
    plan_evaluation(config(), ["eval_strategy", "eval_steps"], 1000, False)
    with pytest.raises(ValueError, match="--eval_steps need held-out data.*--eval_ratio"):
        plan_evaluation(config(), ["eval_steps"], 1000, False)
    with pytest.raises(ValueError, match="--eval_steps need held-out data.*--eval_ratio"):
        plan_evaluation(config(eval_strategy="steps"), ["eval_strategy"], 1000, False)


def test_the_settings_class_takes_plain_arguments():
    assert SFTSettings(hf_dataset_path="a").hf_dataset_path == ["a"]
    with pytest.raises(ValueError, match="one number above 0 for each of 2 datasets"):
        SFTSettings(hf_dataset_path=["a", "b"], dataset_weights=[1.0])
