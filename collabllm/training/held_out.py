"""Scores on held-out tasks before and after training: loss, token accuracy, ranking accuracy."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from transformers import Trainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from collabllm.data_processing.tokenization import render_chat
from collabllm.messages import Message, to_chat

logger = logging.getLogger(__name__)

_SAMPLE_TOKENS = 64
Sums = np.ndarray[Any, Any]
"""Sum of log-probabilities, right tokens and tokens of each row, shape [rows, 3]."""


def score_held_out(trainer: Trainer, rows: Dataset, pairs: Dataset) -> dict[str, float]:
    """Measure the model on held-out rows and pairs.

    Args:
        trainer: A TRL trainer whose model has the fused LM head.
        rows: Tokenized conversations.
        pairs: From `tokenizing.to_ranked_rows`.

    Returns:
        `loss` (nats per token), `token_accuracy`, `ranking_accuracy` (share of turns whose best
        reply has the higher mean log-probability; absent without pairs), and the counts behind
        them.
    """
    log_probs, correct, counts = score_rows(trainer, rows, "Held-out rows").T
    scores = {
        "loss": float(-log_probs.sum() / counts.sum()),
        "token_accuracy": float(correct.sum() / counts.sum()),
        "num_tokens": int(counts.sum()),
    }
    if len(pairs):
        scores |= rank_pairs(score_rows(trainer, pairs, "Held-out pairs"))
    return scores


def rank_pairs(sums: Sums) -> dict[str, float]:
    """Compute `ranking_accuracy` and `num_pairs`; rows are best, worst, best, worst and so on."""
    means = sums[:, 0] / sums[:, 2]
    return {
        "ranking_accuracy": float((means[0::2] > means[1::2]).mean()),
        "num_pairs": len(sums) // 2,
    }


def compare_with_reference(sums: Sums, reference: Sums, beta: float) -> dict[str, float]:
    """Compute DPO's implicit rewards of held-out pairs.

    Args:
        sums: Sums of the policy, from `score_rows`.
        reference: Sums of the reference, in the same order.
        beta: DPO's.

    Returns:
        `margin` (mean reward of the chosen reply less that of the rejected one, in nats times
        beta) and `reward_accuracy` (share of pairs with a positive one; ties count half).

    Source: arXiv:2305.18290, equation 5.
    """
    rewards = beta * (sums[:, 0] - reference[:, 0])
    margins = rewards[0::2] - rewards[1::2]
    won = (margins > 0).mean() + 0.5 * (margins == 0).mean()
    return {"margin": float(margins.mean()), "reward_accuracy": float(won)}


def score_rows(trainer: Trainer, rows: Dataset, title: str) -> Sums:
    """Sum over the trained tokens of each row, in the order of the rows."""
    from tqdm.auto import tqdm

    by_length = np.argsort([-len(ids) for ids in rows["input_ids"]], kind="stable")
    pad_token_id = trainer.processing_class.pad_token_id
    loader = trainer.accelerator.prepare_data_loader(
        DataLoader(
            rows.select(by_length),
            batch_size=trainer.args.per_device_eval_batch_size,
            collate_fn=DataCollatorForLanguageModeling(pad_token_id),
            generator=torch.Generator(),  # leaves the training run's random stream alone
        )
    )
    model = trainer.model
    assert model is not None
    was_training = model.training
    model.eval()
    found = []
    for batch in tqdm(loader, desc=title, disable=not trainer.is_world_process_zero(), leave=False):
        with torch.no_grad(), trainer.accelerator.autocast():  # as in training, from the start
            outputs = model(**batch, fused_lm_head=True)
        sums = torch.stack(  # [batch, 3]
            [
                outputs.log_probs.float().sum(-1),
                outputs.is_top1.float().sum(-1),
                outputs.label_mask.float().sum(-1),
            ],
            dim=-1,
        )
        found.append(trainer.accelerator.gather_for_metrics(sums).cpu().numpy())
    model.train(was_training)
    scores = np.empty((len(rows), 3))
    scores[by_length] = np.concatenate(found)
    return scores


def choose_samples(rows: Sequence[Mapping[str, Any]], num_samples: int) -> list[list[Message]]:
    """Take the openings of held-out conversations, spread from the longest to the shortest.

    In a long one something was left out of the opening; in a short one nothing was.
    """
    openings: dict[str, list[Message]] = {}
    for row in sorted(rows, key=lambda row: -len(row["messages"])):
        end = next(i for i, m in enumerate(row["messages"]) if m["role"] == "user") + 1
        openings.setdefault(row["messages"][end - 1]["content"], to_chat(row["messages"][:end]))
    chosen = list(openings.values())
    picks = np.linspace(0, len(chosen) - 1, min(num_samples, len(chosen)))
    return [chosen[int(pick)] for pick in picks]


def answer_samples(trainer: Trainer, samples: Sequence[Sequence[Message]]) -> list[str]:
    """Answer each conversation greedily, at most 64 tokens each."""
    tokenizer: Any = trainer.processing_class
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    was_training = model.training
    model.eval()
    options = getattr(trainer.args, "chat_template_kwargs", None) or {}
    replies = []
    for messages in samples:
        text = render_chat(messages, tokenizer, add_generation_prompt=True, **options)
        encoded = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)
        with torch.no_grad():
            output = model.generate(**encoded, max_new_tokens=_SAMPLE_TOKENS, do_sample=False)
        replies.append(
            tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        )
    model.train(was_training)
    return replies


def print_comparison(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Print held-out scores before and after training, with the counts behind them."""
    table = Table(title="Held-out tasks")
    for column in ("metric", "before", "after", "change", "over"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    tokens, turns, talks = (
        f"{_counts(before, after, f'num_{unit}')} {label}"
        for unit, label in (
            ("tokens", "tokens"),
            ("pairs", "turns"),
            ("conversations", "conversations"),
        )
    )
    rows = [
        ("loss", "loss (lower is better)", tokens),
        ("token_accuracy", "token accuracy", tokens),
        ("ranking_accuracy", "ranking accuracy", turns),
        ("reward_accuracy", "reward accuracy", turns),
        ("margin", "reward margin", turns),
    ]
    named = {"num_tokens", "num_pairs", "num_conversations", *(key for key, _, _ in rows)}
    rows += [(key, key.replace("_", " "), talks) for key in before if key not in named]
    for key, label, over in rows:
        if key in before and key in after:
            first, last = before[key], after[key]
            table.add_row(label, f"{first:.3f}", f"{last:.3f}", f"{last - first:+.3f}", over)
    Console().print(table)


def _counts(before: Mapping[str, float], after: Mapping[str, float], name: str) -> str:
    """Return a count, or both where they differ."""
    counts = (f"{scores.get(name, 0):,.0f}" for scores in (before, after))
    return " and ".join(dict.fromkeys(counts))


def print_samples(
    samples: Sequence[Sequence[Message]], before: Sequence[str], after: Sequence[str]
) -> None:
    """Print held-out openings and the replies to them before and after training."""
    console = Console(highlight=False, markup=False)
    for messages, first, last in zip(samples, before, after, strict=True):
        console.print(f"\nUser:   {messages[-1]['content']}", style="bold")
        console.print(f"Before: {first.strip()}")
        console.print(f"After:  {last.strip()}", style="green")
