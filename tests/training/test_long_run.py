"""A run of a hundred steps: evaluated and saved on its way, with the best checkpoint named."""

import json

from collabllm.training.checkpoints import list_checkpoints
from scripts.train_sft import main


def test_a_long_run_measures_loss_and_ranking_on_its_way_and_names_the_best(
    sft_flags, tmp_path, capsys
):
    main(sft_flags(max_steps=100, save_strategy=None, batch_size=2))

    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    history = metrics["log_history"]
    losses = {e["step"]: e["eval_loss"] for e in history if "eval_loss" in e}
    rankings = [e["step"] for e in history if "eval_ranking_accuracy" in e]
    assert list(losses) == rankings == list(range(10, 101, 10))
    best = min(losses, key=losses.get)
    assert metrics["best_checkpoint"] == str(tmp_path / f"run/checkpoint-{best}")
    assert f"Best on held-out data: {metrics['best_checkpoint']} (eval_loss " in (
        capsys.readouterr().out
    )
    kept = [folder.name for folder in list_checkpoints(tmp_path / "run")]
    assert {f"checkpoint-{best}", "checkpoint-100"} <= set(kept)
    assert len(kept) == 2
