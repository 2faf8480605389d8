"""What a run measures before and after training, and what it leaves in its folder."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from transformers import Trainer

from collabllm.data_processing.reply_tokens import end_ids
from collabllm.hub import BUNDLED_MODEL
from collabllm.training import card, held_out
from collabllm.training.data import TrainingData
from collabllm.training.method import Scores

if TYPE_CHECKING:
    from collabllm.training.run import Run

logger = logging.getLogger(__name__)


def leave_results(
    trainer: Trainer,
    run: "Run",
    data: TrainingData,
    before: Scores,
    after: Scores,
    train_metrics: Mapping[str, float],
) -> None:
    """Write card and metrics, and print the comparison."""
    facts = {
        "method": run.method.name,
        "made_by": run.method.made_by,
        "run_name": trainer.args.run_name,
        "bundled": run.settings.hf_model_path == BUNDLED_MODEL,
        "settings": {**asdict(run.settings), **run.given},
        "data": data.facts,
        "messages": card.build_example(run.settings.system_prompt, run.tokenizer),
        "end_ids": end_ids(trainer.accelerator.unwrap_model(trainer.model), run.tokenizer),
        "template_options": getattr(run.config, "chat_template_kwargs", None) or {},
    }
    card.write_card(run.folder, run.settings, facts, before, after, run.hub)
    card.write_metrics(
        run.folder,
        {
            "before": before,
            "after": after,
            "train": dict(train_metrics),
            "resumed_from": run.checkpoint,
            "preflight": data.preflight.to_metrics(),
            "data": data.facts,
            "versions": card.library_versions(),
            "best_checkpoint": trainer.state.best_model_checkpoint,
            "log_history": trainer.state.log_history,
        },
    )
    if before:
        held_out.print_comparison(before, after)


def evaluate(
    trainer: Trainer, run: "Run", data: TrainingData, when: str
) -> tuple[Scores, list[str]]:
    """Score the held-out data and answer the samples; the random state stays as it was."""
    if run.sharding.kind:
        logger.info("With a sharded model only the trainer's own evaluation runs, %s.", when)
        return {}, []
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        scores = run.method.score(trainer, data)
        replies = []
        if scores and trainer.is_world_process_zero():
            replies = held_out.answer_samples(trainer, data.samples)
    if scores:
        trainer.log({f"held_out_{when}/{name}": value for name, value in scores.items()})
    return scores, replies
