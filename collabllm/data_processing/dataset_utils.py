"""Convert scored multi-turn datasets to rows for SFT and for preference training."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from datasets import Dataset, DatasetDict, Features, List, Value

from collabllm.data_processing.pair_confidence import PairConfidence
from collabllm.data_processing.selection import Reply, Selection, select_replies, to_table
from collabllm.data_processing.splitting import (
    check_eval_ratio,
    check_split_column,
    is_eval_task,
)
from collabllm.messages import Message, with_system_prompt
from collabllm.prompts import DEFAULT_SYSTEM_PROMPT as DEFAULT_SYSTEM_PROMPT

logger = logging.getLogger(__name__)

Turns = Literal["merged", "every"]

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
_WEIGHTED_MESSAGES = List(
    {"role": Value("string"), "content": Value("string"), "weight": Value("int64")}
)


def multiturn_dataset_to_sft(
    dataset: Dataset | Iterable[Mapping[str, Any]],
    eval_ratio: float = 0.0,
    lower_bound_metric: float | None = None,
    system_prompt: str | None = DEFAULT_SYSTEM_PROMPT,
    *,
    lower_bound_percentile: float | None = None,
    score_column: str = "score",
    turns: Turns = "merged",
    split_by: str = "single_turn_prompt",
) -> DatasetDict:
    """Keep the best-scored reply of every turn, as conversations to train on.

    Of the replies to one turn the highest-scoring counts (ties: the first in the dataset). It is
    kept, unless there is a threshold that its score does not reach: then it stays as context, with
    weight 0.

    Args:
        dataset: Rows in the dataset format, from `load_multiturn_dataset` or a list; unchanged.
        eval_ratio: Share of tasks for `eval`, in [0, 1), chosen by a hash of the task.
        lower_bound_metric: Lowest score to keep, on the dataset's own scale; None keeps all.
        system_prompt: Put first, unless a prompt brings its own; None or "" for no system message.
        lower_bound_percentile: In [0, 100]; replaces `lower_bound_metric` by this percentile of the
            best scores of all turns.
        score_column: Column to rank and filter by, dotted into dicts and averaged over lists
            (`rewards.accuracy`).
        turns: `merged` gives one row per conversation with a weight on each reply, and a row of its
            own for a best reply that the conversation did not go on with; `every` one row per turn.
        split_by: Column that names a row's task, dotted into dicts; `conv_id` where it is missing.

    Returns:
        `train` and `eval`, sorted by `conv_id` and `turn_id`, with `messages` (role, content and,
        on replies, weight), `conv_id`, `turn_id` and `score` of the row's last reply, and the
        `single_turn_*` columns. `eval` is empty when `eval_ratio` is 0.

    Raises:
        ValueError: If a setting is out of range, a score is missing, or train or a requested eval
            would be empty.
    """
    check_eval_ratio(eval_ratio)
    if turns not in get_args(Turns):
        raise ValueError(f"turns must be one of {', '.join(get_args(Turns))}, got {turns!r}.")
    table = to_table(dataset)
    check_split_column(table, split_by)
    selection = select_replies(
        table, score_column, lower_bound_metric, lower_bound_percentile, split_by
    )
    rows = []
    for conversation in selection.conversations:
        kept = [reply for reply in conversation if reply.score >= selection.threshold]
        rows += _to_rows(table, kept, turns, system_prompt)
    logger.info("%s", selection.describe())
    columns = _shared_columns(table)
    features = {"messages": _WEIGHTED_MESSAGES, "score": Value("float64")}
    return _split(rows, table, columns, features, eval_ratio, _why_empty(selection))


def multiturn_dataset_to_dpo(
    dataset: Dataset | Iterable[Mapping[str, Any]],
    eval_ratio: float = 0.0,
    min_score_gap: float = 0.0,
    system_prompt: str | None = DEFAULT_SYSTEM_PROMPT,
    *,
    min_confidence: float | None = None,
    score_column: str = "score",
    split_by: str = "single_turn_prompt",
) -> DatasetDict:
    """Pair the best with the worst reply of every turn that has at least two scores.

    Ties, pairs of equal texts, and those whose gap is under `min_score_gap`, are left out and
    counted in the log. With `min_confidence` the rewards of the sampled futures decide instead of
    the gap. The split is that of `multiturn_dataset_to_sft`, so a held-out SFT task is never
    trained on here.

    Args:
        dataset: Rows in the dataset format; unchanged.
        eval_ratio: Share of tasks for `eval`, in [0, 1).
        min_score_gap: Smallest difference in score of a pair, at least 0.
        system_prompt: As in `multiturn_dataset_to_sft`.
        min_confidence: Keep pairs with P(chosen is better than rejected) of at least this, in
            [0.5, 1), from `rewards.total` or `rewards.MR`, one reward a future; see
            `PairConfidence`.
        score_column: As in `multiturn_dataset_to_sft`.
        split_by: As in `multiturn_dataset_to_sft`.

    Returns:
        `train` and `eval` with conversational `prompt`, `chosen` and `rejected`, `chosen_score`,
        `rejected_score`, `conv_id`, `turn_id` and the `single_turn_*` columns.

    Raises:
        ValueError: If a setting is out of range, there are no rewards of futures to be confident
            by, or train or a requested eval would be empty.
    """
    check_eval_ratio(eval_ratio)
    if min_score_gap < 0:
        raise ValueError(f"min_score_gap must be at least 0, got {min_score_gap}.")
    if min_confidence is not None and not 0.5 <= min_confidence < 1:
        raise ValueError(f"min_confidence must be in [0.5, 1), got {min_confidence}.")
    table = to_table(dataset)
    check_split_column(table, split_by)
    selection = select_replies(table, score_column, None, None, split_by)
    best = [reply for conversation in selection.conversations for reply in conversation]
    completions = table.select_columns("completion")
    pairs = [
        reply
        for reply in best
        if reply.score > reply.worst_score
        and completions[reply.row_idx] != completions[reply.worst_row_idx]
    ]
    num_ties = len(best) - len(pairs)
    if min_confidence is None:
        pairs = [reply for reply in pairs if reply.score - reply.worst_score >= min_score_gap]
        rule = f"a gap under {min_score_gap:g}"
    else:
        sure = PairConfidence(table)
        pairs = [r for r in pairs if sure.of(r.row_idx, r.worst_row_idx) >= min_confidence]
        rule = f"a confidence under {min_confidence:g}"
    rows = [(reply, _to_pair(table, reply, system_prompt)) for reply in pairs]
    num_unsure = len(best) - num_ties - len(pairs)
    logger.info(
        "%d preference pairs from %d turns; left out: %d ties, equal or single replies, %d with "
        "%s.",
        len(pairs),
        len(best),
        num_ties,
        num_unsure,
        rule,
    )
    why = (
        f"of {len(best)} turns, {num_ties} have no two scores or texts and {num_unsure} have {rule}"
    )
    scores = {"chosen_score": Value("float64"), "rejected_score": Value("float64")}
    texts = dict.fromkeys(("prompt", "chosen", "rejected"), _MESSAGES)
    return _split(rows, table, _shared_columns(table), {**texts, **scores}, eval_ratio, why)


def multiturn_dataset_to_prompts(
    dataset: Dataset | Iterable[Mapping[str, Any]],
    eval_ratio: float = 0.0,
    system_prompt: str | None = DEFAULT_SYSTEM_PROMPT,
    *,
    score_column: str = "score",
    split_by: str = "single_turn_prompt",
) -> DatasetDict:
    """Keep each distinct conversation up to a user message, for a policy to answer online.

    The split is that of `multiturn_dataset_to_sft`, so a held-out task is never trained on here.

    Args:
        dataset: Rows in the dataset format; unchanged.
        eval_ratio: Share of tasks for `eval`, in [0, 1).
        system_prompt: As in `multiturn_dataset_to_sft`.
        score_column: As in `multiturn_dataset_to_sft`.
        split_by: As in `multiturn_dataset_to_sft`.

    Returns:
        `train` and `eval` with conversational `prompt`, `conv_id`, `turn_id` and the
        `single_turn_*` columns.

    Raises:
        ValueError: If a setting is out of range, or train or a requested eval would be empty.
    """
    check_eval_ratio(eval_ratio)
    table = to_table(dataset)
    check_split_column(table, split_by)
    selection = select_replies(table, score_column, None, None, split_by)
    rows: dict[tuple[str, str], Row] = {}
    for reply in (reply for conversation in selection.conversations for reply in conversation):
        prompt = table[reply.row_idx]["prompt"]
        content = {"prompt": with_system_prompt(prompt, system_prompt)}
        rows.setdefault((reply.task, json.dumps(prompt)), (reply, content))
    return _split(
        list(rows.values()),
        table,
        _shared_columns(table),
        {"prompt": _MESSAGES},
        eval_ratio,
        "the dataset has no turns",
    )


Row = tuple[Reply, dict[str, Any]]


def _to_rows(
    table: Dataset, kept: Sequence[Reply], turns: Turns, system_prompt: str | None
) -> list[Row]:
    """Build a conversation's training rows; a kept reply is trained in exactly one of them.

    A reply's path is its prompt and itself. Paths are taken from the last to the first, and each
    looks for a row that begins with it:

        u1 A1 u2 A2    the last path: a row, trained on A2
        u1 A1          begins that row: A1 is trained there, too
        u1 B1          where the conversation went on with A1 and B1 was better: a row of its own
    """
    paths = [
        [*row["prompt"], {"role": "assistant", "content": row["completion"]}]
        for row in (table[reply.row_idx] for reply in kept)
    ]
    rows: list[tuple[Reply, list[Any], set[int]]] = []  # reply, messages, positions to train
    for reply, path in zip(reversed(kept), reversed(paths), strict=True):
        home = next((row for row in rows if row[1][: len(path)] == path), None)
        if home is None or turns == "every":
            rows.append((reply, path, {len(path) - 1}))
        else:
            home[2].add(len(path) - 1)
    return [
        (
            reply,
            {
                "messages": with_system_prompt(_weigh(path, trained), system_prompt),
                "score": reply.score,
            },
        )
        for reply, path, trained in reversed(rows)
    ]


def _weigh(path: Sequence[Message], trained: set[int]) -> list[Message]:
    weighted: list[Message] = []
    for idx, message in enumerate(path):
        weight = int(idx in trained) if message["role"] == "assistant" else None
        weighted.append({**message, "weight": weight})
    return weighted


def _to_pair(table: Dataset, reply: Reply, system_prompt: str | None) -> dict[str, Any]:
    row = table[reply.row_idx]
    rejected = table[reply.worst_row_idx]["completion"]
    return {
        "prompt": with_system_prompt(row["prompt"], system_prompt),
        "chosen": [{"role": "assistant", "content": row["completion"]}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "chosen_score": reply.score,
        "rejected_score": reply.worst_score,
    }


def _shared_columns(table: Dataset) -> list[str]:
    return ["conv_id", "turn_id", *(c for c in table.column_names if c.startswith("single_turn_"))]


def _split(
    rows: Sequence[Row],
    table: Dataset,
    shared: Sequence[str],
    features: Mapping[str, Any],
    eval_ratio: float,
    why_empty: str,
) -> DatasetDict:
    """Divide rows by task, add the shared columns, and refuse an empty side that was asked for."""
    types = Features({**features, **{column: table.features[column] for column in shared}})
    sides: dict[str, list[Row]] = {"train": [], "eval": []}
    for row in rows:
        sides["eval" if is_eval_task(row[0].task, eval_ratio) else "train"].append(row)
    num_tasks = len({reply.task for reply, _ in rows})
    if not sides["train"]:
        reason = why_empty if not rows else "lower eval_ratio or use more tasks"
        raise ValueError(
            f"train would be empty: {len(rows)} rows of {num_tasks} tasks remain ({reason})."
        )
    if eval_ratio and not sides["eval"]:
        raise ValueError(
            f"eval would be empty: eval_ratio={eval_ratio} holds out none of {num_tasks} tasks; "
            "raise it, use more tasks, or set it to 0."
        )
    selected = table.select_columns(list(shared))
    result = DatasetDict()
    for side, side_rows in sides.items():
        full = [{**content, **selected[reply.row_idx]} for reply, content in side_rows]
        columns = {name: [row[name] for row in full] for name in types}
        result[side] = Dataset.from_dict(columns, features=types)
    return result


def _why_empty(selection: Selection) -> str:
    return (
        f"the best replies of {selection.num_turns} turns score at most "
        f"{selection.highest:g}; lower_bound is {selection.threshold:g}"
    )
