"""scripts/train_sft.py from flags to adapter, on a tiny model with NF4 on the CPU."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GenerationConfig, SchedulerType
from transformers.trainer_pt_utils import LengthGroupedSampler

from collabllm.data_processing import (
    IGNORE_INDEX,
    load_multiturn_dataset,
    multiturn_dataset_to_sft,
    tokenize_conversation,
)
from collabllm.models import load_base_model, load_tokenizer
from collabllm.prompts import DEFAULT_SYSTEM_PROMPT
from collabllm.training import train_sft
from collabllm.training.data import take_evenly
from scripts.merge_adapter import main as merge
from scripts.train_sft import main
from tests.training.conftest import save_tiny_model


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "metrics.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_a_run_leaves_adapter_tokenizer_card_configuration_and_metrics(sft_flags, tmp_path, capsys):
    main(sft_flags(max_steps=12))

    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "README.md",
        "train_config.yaml",
        "metrics.json",
    } <= names
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["after"]["loss"] < metrics["before"]["loss"]
    assert metrics["after"]["num_pairs"] == metrics["data"]["held-out rows"] * 2
    card = (run / "README.md").read_text()
    assert "| ranking_accuracy |" in card
    assert "PeftModel.from_pretrained(base" in card
    assert metrics["data"]["fingerprint"] in card
    assert f'"role": "system", "content": {DEFAULT_SYSTEM_PROMPT!r}' in card
    output = capsys.readouterr().out
    assert "trained part between << and >>" in output
    assert "--lower_bound_metric 0.9 keeps 100% of them" in output
    assert "ranking accuracy" in output
    assert f"Adapter: {run}" in output


def test_the_adapter_loads_with_peft_and_gives_the_trainers_logits(sft_flags, start, tmp_path):
    run, data = start(sft_flags(dtype="float32"))
    trainer = run.method.build_trainer(run, data)
    trainer.train()
    ids = torch.tensor([[5, 9, 2, 7, 11, 3]])
    with torch.no_grad():
        expected = trainer.model.eval()(input_ids=ids).logits

    trainer.save_model(tmp_path / "adapter")
    base = load_base_model(run.settings.hf_model_path, use_4bit=True, dtype=torch.float32)
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        logits = loaded(input_ids=ids).logits

    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    assert (logits - plain).abs().max() > 1e-3


def test_the_same_seed_gives_the_same_losses_bit_for_bit(sft_flags, tmp_path):
    main(sft_flags(output_dir=tmp_path / "a"))
    main(sft_flags(output_dir=tmp_path / "b"))
    main(sft_flags(output_dir=tmp_path / "c", seed=7))

    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_train_config_runs_the_same_training_again(sft_flags, tmp_path):
    main(sft_flags(output_dir=tmp_path / "a", warmup_steps=2, lr_scheduler_type="cosine"))
    main(["--config", str(tmp_path / "a/train_config.yaml"), "--output_dir", str(tmp_path / "b")])

    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_evaluation_before_and_between_steps_does_not_change_training(sft_flags, tmp_path):
    main(sft_flags(output_dir=tmp_path / "never", eval_ratio=0.3, eval_strategy="no"))
    args = sft_flags(output_dir=tmp_path / "often", eval_strategy="steps", eval_steps=1)
    main(args)
    history = json.loads((tmp_path / "often/metrics.json").read_text())["log_history"]

    assert sum("eval_loss" in entry for entry in history) == 4
    assert losses(tmp_path / "often") == losses(tmp_path / "never")


@pytest.mark.slow
def test_evaluating_the_bundled_4bit_model_first_leaves_its_training_right(
    sft_flags, start, small_dataset
):
    """Without the guard in models.py the losses differ on a CPU with AVX512-BF16."""

    def train(evaluate_first: bool) -> list[float]:
        flags = sft_flags(hf_model_path="smollm2-135m-instruct", max_steps=2, batch_size=2)
        run, data = start(flags)
        trainer = run.method.build_trainer(run, data)
        if evaluate_first:
            trainer.evaluate(data.eval.select(range(2)))
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert train(evaluate_first=True) == train(evaluate_first=False)


def test_packing_trains_the_same_number_of_tokens(sft_flags, start):
    counts = {}
    for packing in ("false", "true"):
        run, data = start(sft_flags(packing=packing))
        trainer = run.method.build_trainer(run, data)
        batches = list(trainer.get_train_dataloader())
        counts[packing] = sum(int((b["labels"] != IGNORE_INDEX).sum()) for b in batches)
        assert data.preflight.num_trained_tokens == counts[packing]
    assert counts["true"] == counts["false"]
    main(sft_flags(packing="true"))


def test_the_preflight_counts_the_steps_of_packed_rows(sft_flags, start):
    one_each = {"batch_size": 1, "gradient_accumulation_steps": 1, "num_train_epochs": 2}
    run, data = start(sft_flags(packing="true", max_steps=None, **one_each))
    trainer = run.method.build_trainer(run, data)

    steps = 2 * len(trainer.train_dataset)
    assert steps < 2 * len(data.train)
    assert any(note.startswith(f"{steps} optimizer steps") for note in data.preflight.notes)


def test_length_grouping_puts_rows_of_a_length_into_a_batch(sft_flags, start):
    run, data = start(sft_flags(train_sampling_strategy="group_by_length"))
    trainer = run.method.build_trainer(run, data)

    assert isinstance(trainer._get_train_sampler(), LengthGroupedSampler)


def test_the_gradient_of_a_merged_row_is_the_sum_over_its_turns(tiny_model, small_dataset):
    tokenizer = load_tokenizer(str(tiny_model))
    model = load_base_model(str(tiny_model), dtype=torch.float32)
    dataset = load_multiturn_dataset(small_dataset)
    dataset = dataset.filter(lambda row: row["conv_id"] == 3)

    def summed_gradient(turns: str) -> torch.Tensor:
        model.zero_grad()
        rows = multiturn_dataset_to_sft(dataset, turns=turns)["train"]
        for messages in rows["messages"]:
            row = tokenize_conversation(messages, tokenizer)
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"][1:])
            torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    every, merged = summed_gradient("every"), summed_gradient("merged")

    assert ((merged - every).norm() / every.norm()).item() < 1e-4


def test_the_first_token_of_every_reply_counts_more_in_training_alone(sft_flags, start):
    run, data = start(sft_flags(first_token_weight=5, dtype="float32"))
    trainer = run.method.build_trainer(run, data)
    batch = trainer.data_collator([data.train[0], data.train[1]])
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"]).logits
    log_probs = logits.log_softmax(-1)
    losses, weights = [], []
    for row, labels in enumerate(batch["labels"].tolist()):
        for place in range(1, len(labels)):
            if labels[place] != IGNORE_INDEX:
                losses.append(-log_probs[row, place - 1, labels[place]].item())
                weights.append(5 if labels[place - 1] == IGNORE_INDEX else 1)
    weighted = sum(loss * weight for loss, weight in zip(losses, weights, strict=True))

    assert weights.count(5) == 4  # two conversations of two replies
    trainer.model.train()
    found = trainer.compute_loss(trainer.model, dict(batch))
    assert found.item() == pytest.approx(weighted / len(losses), rel=1e-4)
    trainer.model.eval()
    found = trainer.compute_loss(trainer.model, dict(batch))
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("flags", [{"loss_type": "dft"}, {"label_smoothing_factor": 0.1}])
def test_losses_that_the_first_tokens_weight_would_not_reach_are_refused(sft_flags, flags):
    with pytest.raises(ValueError, match="--first_token_weight needs"):
        main(sft_flags(first_token_weight=5, **flags))


def test_a_weight_of_first_tokens_is_refused_where_all_replies_begin_alike(
    sft_flags, start, tmp_path
):
    folder = save_tiny_model(tmp_path / "thinks", "qwen3")

    with pytest.raises(ValueError, match="every reply begins with <think>.* --chat_template_path"):
        start(sft_flags(hf_model_path=folder, first_token_weight=5))

    start(sft_flags(hf_model_path=folder))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"assistant_only_loss": "true"}, "assistant_only_loss is for TRL's own tokenizing"),
        ({"padding_free": "true"}, "padding_free does not keep to max_length without packing"),
        ({"save_strategy": "best"}, "--save_strategy best needs to know by what"),
    ],
)
def test_what_trl_would_find_with_the_weights_is_refused_before(
    sft_flags, monkeypatch, flags, says
):
    monkeypatch.setattr(
        "collabllm.training.run.load_base_model", lambda *a, **k: pytest.fail("weights loaded")
    )

    with pytest.raises(ValueError, match=says):
        main(sft_flags(**flags))


def test_paths_and_enums_of_a_notebook_reach_files_as_text(tiny_model, small_dataset, tmp_path):
    template = tmp_path / "own.jinja"
    template.write_text(load_tokenizer(str(tiny_model)).chat_template)

    folder = train_sft(
        hf_model_path=tiny_model,
        hf_dataset_path=small_dataset,
        output_dir=tmp_path / "run",
        chat_template_path=template,
        lr_scheduler_type=SchedulerType.COSINE,
        max_steps=1,
        eval_ratio=0,
        load_in_4bit=False,
        report_to="none",
        push_to_hub=False,
    )

    kept = yaml.safe_load((folder / "train_config.yaml").read_text())
    assert (kept["chat_template_path"], kept["lr_scheduler_type"]) == (str(template), "cosine")


def test_the_command_that_users_know_works(tiny_model, small_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    main(
        f"--hf_model_path {tiny_model} --hf_dataset_path {small_dataset} --learning_rate 2e-5 "
        "--batch_size 4 --output_name_tag my/tag --eval_ratio 0.3 --max_steps 1 "
        "--num_train_epochs 1".split()
    )

    (run,) = (tmp_path / "outputs").iterdir()
    assert run.name.startswith("sft-my-tag-")
    assert list((run / "wandb").glob("offline-run-*"))
    assert yaml.safe_load((run / "train_config.yaml").read_text())["learning_rate"] == 2e-5
    assert yaml.safe_load((run / "train_config.yaml").read_text())["max_length"] == 1024


def test_a_token_on_the_command_line_reaches_no_file(sft_flags, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "")  # restored after the test

    main([*sft_flags(max_steps=1), "--hub_token", "hf_secretvalue"])

    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path for path in files if b"hf_secretvalue" in path.read_bytes()] == []
    assert "hf_secretvalue" not in caplog.text


def test_an_adapter_of_the_bundled_model_names_it_and_is_saved_without_looking_for_it(
    sft_flags, tiny_model, tmp_path, monkeypatch, recwarn
):
    monkeypatch.setattr("collabllm.models._bundled_model_folder", lambda: tiny_model)

    main(sft_flags(hf_model_path="smollm2-135m-instruct", max_steps=1))

    config = json.loads((tmp_path / "run/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "smollm2-135m-instruct"
    assert 'load_base_model("smollm2-135m-instruct")' in (tmp_path / "run/README.md").read_text()
    assert not [warning for warning in recwarn if "config file" in str(warning.message)]


def test_in_16_bit_adapter_and_optimizer_stay_in_float32(sft_flags, start):
    run, data = start(sft_flags(dtype="bfloat16", max_steps=1))
    trainer = run.method.build_trainer(run, data)

    trainer.train()

    assert run.config.bf16
    states = [s for state in trainer.optimizer.state.values() for s in state.values()]
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert {value.dtype for value in [*trained, *states]} == {torch.float32}
    assert len(states) == 3 * len(trained)  # both moments, and the step


def test_a_model_taught_another_end_than_its_eos_token_stops_there(sft_flags, start, tmp_path):
    folder = save_tiny_model(tmp_path / "base", "chatml_base")
    tokenizer = load_tokenizer(str(folder))
    ends = sorted([tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id])

    run, _ = start(sft_flags(hf_model_path=folder, load_in_4bit="false"))
    main(sft_flags(hf_model_path=folder, load_in_4bit="false", max_steps=1))
    merge(["--lora_path", str(tmp_path / "run"), "--output_dir", str(tmp_path / "merged")])

    assert run.load_model().generation_config.eos_token_id == ends  # that of sample replies
    assert f"eos_token_id={ends}" in (tmp_path / "run/README.md").read_text()
    assert GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id == ends


def test_without_4bit_it_trains_the_plain_model(sft_flags, tmp_path):
    main(sft_flags(load_in_4bit="false", eval_ratio=0))

    assert json.loads((tmp_path / "run/metrics.json").read_text())["before"] == {}
    assert load_file(tmp_path / "run/adapter_model.safetensors")


def test_nothing_to_train_and_too_much_lost_stop_before_weights_load(sft_flags, monkeypatch):
    monkeypatch.setattr(
        "collabllm.training.run.load_base_model", lambda *a, **k: pytest.fail("weights loaded")
    )

    with pytest.raises(ValueError, match="Nothing would train: .* max_length=8"):
        main(sft_flags(max_length=8))
    with pytest.raises(ValueError, match=r"replies \(\d+.\d%\) do not fit.*--allow_trunc"):
        main(sft_flags(max_length=170))
    with pytest.raises(ValueError, match="train would be empty: .* lower_bound is 5"):
        main(sft_flags(lower_bound_metric=5))


def test_allow_truncation_trains_on_what_fits(sft_flags, tmp_path, capsys):
    main(sft_flags(max_length=170, allow_truncation=True))

    preflight = json.loads((tmp_path / "run/metrics.json").read_text())["preflight"]
    assert preflight["preflight/replies_lost"] > 0
    assert "lost to max_length" in capsys.readouterr().out


def test_a_model_without_the_projections_lists_what_it_has(sft_flags, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=300)).save_pretrained(
        tmp_path / "gpt2"
    )

    with pytest.raises(ValueError, match="no layers named q_proj.*c_attn"):
        main(sft_flags(hf_model_path=tmp_path / "gpt2"))


def test_a_dataset_folder_trains_too(sft_flags, small_dataset, tmp_path):
    rows = [json.loads(line) for line in small_dataset.read_text().splitlines()]
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")

    main(sft_flags(hf_dataset_path=tmp_path / "saved", max_steps=1))

    assert (tmp_path / "run/adapter_model.safetensors").is_file()


def test_ranking_takes_at_most_as_many_turns_as_allowed_spread_evenly(sft_flags, tmp_path):
    main(sft_flags(max_eval_pairs=3, max_steps=1))

    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["before"]["num_pairs"] == metrics["after"]["num_pairs"] == 3
    rows = Dataset.from_dict({"x": list(range(9))})
    assert take_evenly(rows, 3)["x"][:] == [0, 4, 8]
    assert len(take_evenly(rows, 20)) == 9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_callable_from_a_notebook_and_goes_on_from_an_adapter(
    tiny_model, small_dataset, tmp_path, dtype
):
    shared = {
        "hf_model_path": tiny_model,
        "hf_dataset_path": small_dataset,
        "eval_ratio": 0.3,
        "max_steps": 2,
        "dtype": dtype,
        "lora_dropout": 0,
        "report_to": "none",
        "push_to_hub": False,
        "learning_rate": 1e-2,
    }
    first = train_sft(**shared, output_dir=tmp_path / "first", lora_r=4)
    second = train_sft(**shared, output_dir=tmp_path / "second", lora_path=first)

    before, after = (json.loads((f / "metrics.json").read_text()) for f in (first, second))
    assert after["before"]["loss"] == pytest.approx(before["after"]["loss"], rel=1e-5)
    assert yaml.safe_load((second / "train_config.yaml").read_text())["lora_r"] == 4
    assert json.loads((second / "adapter_config.json").read_text())["r"] == 4
