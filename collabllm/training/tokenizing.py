"""Tokenized rows and pairs for the trainers, and the counts of what happens on the way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset, Features, List, Value

from collabllm.data_processing.reply_tokens import find_opening_token
from collabllm.data_processing.tokenization import IGNORE_INDEX, tokenize_conversation
from collabllm.messages import Message
from collabllm.training.preflight import NUM_EXAMPLES, Preflight, cut_middle, mark_trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_IDS = List(Value("int32"))
_ROWS = Features({"input_ids": _IDS, "labels": _IDS})
_PAIRS = Features({"prompt_ids": _IDS, "chosen_ids": _IDS, "rejected_ids": _IDS})


def check_first_tokens(
    tokenizer: "PreTrainedTokenizerBase", flag: str, remedy: str, **options: Any
) -> None:
    """Refuse a flag for the first tokens of replies where they are a special token.

    Args:
        tokenizer: For its chat template.
        flag: For the error.
        remedy: What to do instead of leaving it out.
        options: Further variables of the template.

    Raises:
        ValueError: If the template begins all replies alike.
    """
    token = find_opening_token(tokenizer, **options)
    if token:
        raise ValueError(
            f"{flag}: by this chat template every reply begins with {token}, so that its first "
            f"token decides nothing. Leave it out, or {remedy}."
        )


def no_rows() -> Dataset:
    """Return an empty dataset, for a side that is not there."""
    return Dataset.from_dict({"input_ids": [], "labels": []}, features=_ROWS)


def tokenize_rows(
    rows: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[Dataset, Preflight]:
    """Tokenize conversations and count what happens; rows in which nothing fits are dropped.

    Returns:
        Rows with `input_ids` and `labels`, in the order of `rows`, and the counts.
    """
    report = Preflight("replies")
    tokenized = rows.map(
        lambda row: dict(tokenize_conversation(row["messages"], tokenizer, max_length)),
        remove_columns=rows.column_names,
        desc="Tokenizing",
        features=Features(
            {**_ROWS, "num_replies": Value("int64"), "num_lost_replies": Value("int64")}
        ),
    )
    kept, lengths = [], []
    for idx, row in enumerate(tokenized):
        lengths.append(len(row["input_ids"]))
        report.num_lost += row["num_lost_replies"]
        report.num_items += row["num_replies"]
        report.num_trained_tokens += sum(label != IGNORE_INDEX for label in row["labels"])
        if not row["input_ids"]:
            report.num_dropped_rows += 1
            continue
        kept.append(idx)
        if len(report.examples) < NUM_EXAMPLES:
            report.examples.append(mark_trained(row["input_ids"], row["labels"], tokenizer))
    report.num_rows = len(kept)
    report.set_lengths(lengths)
    return tokenized.select(kept).select_columns(["input_ids", "labels"]), report


def tokenize_pairs(
    pairs: Dataset, tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[Dataset, Preflight]:
    """Tokenize pairs as TRL's collator takes them; those that do not fit are dropped and counted.

    Returns:
        Rows with `prompt_ids`, `chosen_ids` and `rejected_ids`, and the counts.
    """
    report = Preflight("pairs")
    columns: dict[str, list[list[int]]] = {name: [] for name in _PAIRS}
    lengths = []
    for pair in pairs:
        report.num_items += 1
        both = [
            _split(tokenize_conversation(_with_reply(pair, side), tokenizer, max_length))
            for side in ("chosen", "rejected")
        ]
        if not all(reply for _, reply in both):
            report.num_lost += 1
            continue
        prompt, replies = _join_prompts(both)
        for name, ids in zip(columns, (prompt, *replies), strict=True):
            columns[name].append(ids)
        for reply in replies:
            report.num_trained_tokens += len(reply)
            lengths.append(len(prompt) + len(reply))
        if len(report.examples) < NUM_EXAMPLES:
            texts = [cut_middle(str(tokenizer.decode(ids))) for ids in (prompt, *replies)]
            report.examples.append(f"{texts[0]}<<{texts[1]}>> rather than <<{texts[2]}>>")
    report.num_rows = report.num_items - report.num_lost
    report.num_dropped_rows = report.num_lost
    report.set_lengths(lengths)
    return Dataset.from_dict(columns, features=_PAIRS), report


def to_ranked_rows(pairs: Dataset) -> Dataset:
    """Turn tokenized pairs into rows to score: best, worst, best, worst, ….

    Args:
        pairs: From `tokenize_pairs`.

    Returns:
        Rows with `input_ids` and `labels`, the loss on the reply alone.
    """
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for pair in pairs:
        for side in ("chosen_ids", "rejected_ids"):
            columns["input_ids"].append([*pair["prompt_ids"], *pair[side]])
            columns["labels"].append([*[IGNORE_INDEX] * len(pair["prompt_ids"]), *pair[side]])
    return Dataset.from_dict(columns, features=_ROWS)


def _with_reply(pair: Any, side: str) -> list[Message]:
    return [*({**message, "weight": 0} for message in pair["prompt"]), *pair[side]]


def _split(tokenized: Any) -> tuple[list[int], list[int]]:
    """Return the ids before the reply and those of the reply; empty where it does not fit."""
    labels = tokenized["labels"]
    trained = [idx for idx, label in enumerate(labels) if label != IGNORE_INDEX]
    if not trained:
        return [], []
    ids = tokenized["input_ids"]
    return ids[: trained[0]], ids[trained[0] : trained[-1] + 1]


def _join_prompts(
    both: Sequence[tuple[list[int], list[int]]],
) -> tuple[list[int], list[list[int]]]:
    """Return what the prompts of both sides share, and the rest of each side.

    They differ where a reply begins with a line break that joins the prompt's last token.
    """
    (first, _), (second, _) = both
    length = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    return first[:length], [[*prompt[length:], *reply] for prompt, reply in both]
