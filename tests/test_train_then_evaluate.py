"""What training leaves is what evaluation reads: the adapter, and which tasks it knows."""

import pytest

from collabllm.evaluation import evaluate
from collabllm.training import train_sft
from tests.training.conftest import save_tiny_model


def test_an_adapter_is_evaluated_on_tasks_that_it_was_not_trained_on(tmp_path):
    model = str(save_tiny_model(tmp_path / "tiny"))
    adapter = train_sft(
        hf_model_path=model,
        split_by="single_turn_metadata.kind",
        eval_ratio=0.2,
        output_dir=str(tmp_path / "run"),
        load_in_4bit=False,
        max_steps=1,
        max_eval_pairs=2,
        num_sample_replies=0,
        report_to="none",
        push_to_hub="false",
    )
    shared = {
        "arm": ["name=base", f"name=sft,lora_path={adapter}"],
        "hf_model_path": model,
        "num_tasks": 2,
        "max_turns": 1,
        "max_new_tokens": 4,
    }

    results = evaluate(tasks="demo_development", output_dir=str(tmp_path / "held_out"), **shared)

    assert [arm.name for arm in results.arms] == ["base", "sft"]
    with pytest.raises(ValueError, match="Arm sft was trained on 2 of 2 tasks"):
        evaluate(tasks="demo_train", output_dir=str(tmp_path / "trained"), **shared)
