"""Rows of other people's datasets, turned into the columns of a task."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabllm.data_processing.formats import to_goal
from collabllm.files import find_split_file
from collabllm.hub import check_reachable

_MATH = ("problem", "solution")
_BIGCODEBENCH = ("instruct_prompt", "canonical_solution", "test", "entry_point")
_MEDIUM = ("title", "text")
_NO_WISH = re.compile(r"(no|none|not|any|yes|all)\b", re.IGNORECASE)  # no result quotes these
_EXAMPLES = re.compile(r"\s*\([^()]*\)$")
_HARDEST = "Level 5"
_IN3 = ("task", "vague", "missing_details")
_SHARDED = ("sharded_instructions",)
_MEDIQ = ("question", "context", "options", "facts")
_ABG_COQA = ("story", "ambiguity", "clarification_turn")

Row = Mapping[str, Any]


def iter_rows(path: str | Path, split: str = "train") -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, a saved folder or a Hub dataset, one at a time, and where each is.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is not JSON.
    """
    file = Path(path).expanduser()
    if file.suffix in (".jsonl", ".json", ".parquet") and not file.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    from datasets import Dataset, load_dataset, load_from_disk  # pandas loads here

    from collabllm.data_processing.loading import iter_json

    file = find_split_file(file, split) or file
    if file.suffix in (".jsonl", ".json"):
        yield from iter_json(file)
        return
    if file.suffix == ".parquet":
        rows = load_dataset("parquet", data_files=str(file), split="train", streaming=True)
    elif file.is_dir():
        saved = load_from_disk(str(file))
        if not isinstance(saved, Dataset) and split not in saved:
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(saved)}.")
        rows = saved if isinstance(saved, Dataset) else saved[split]
    else:
        check_reachable(str(path), "dataset")
        rows = load_dataset(str(path), split=split, streaming=True)
    for idx, row in enumerate(rows, start=1):
        yield f"row {idx}", row


def recognise(row: Row, columns: Mapping[str, str] | None, where: str) -> Row | None:
    """Give a row the columns of a task, by a column map or by the shape of a known source.

    Args:
        row: As it is in the dataset.
        columns: Our column name to theirs.
        where: Position of the row, for errors.

    Returns:
        A row with `single_turn_prompt`, or None for one to leave out (MATH below level 5).

    Raises:
        ValueError: If a mapped column is not there, or a row of conversations has none.
    """
    if not isinstance(row, Mapping):
        return row
    if columns:
        missing = [theirs for theirs in columns.values() if theirs not in row]
        if missing:
            raise ValueError(
                f"{where}: has no column {', '.join(missing)}; it has {', '.join(row)}."
            )
        return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}}
    if "single_turn_prompt" in row:
        return row
    for columns_of, convert in _SHAPES.items():
        if all(name in row for name in columns_of):
            return convert(row)
    try:
        return to_goal(row) or row
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _from_math(row: Row) -> Row | None:
    """MATH (Hendrycks et al. 2021), for example `lighteval/MATH-Hard`; accuracy is its metric."""
    if row.get("level", _HARDEST) != _HARDEST:
        return None
    return {
        "single_turn_prompt": row["problem"],
        "single_turn_completion": row["solution"],
        "task_desc": "getting a mathematical problem solved",
        "single_turn_metadata": {"type": row.get("type", ""), "level": row.get("level", _HARDEST)},
    }


def _from_bigcodebench(row: Row) -> Row:
    """BigCodeBench (Zhuo et al. 2024), `bigcode/bigcodebench`; pass_rate is its metric."""
    head = str(row.get("code_prompt") or "").rstrip()  # the solution is what stands below it
    return {
        "task_id": row.get("task_id"),
        "single_turn_prompt": row["instruct_prompt"],
        "single_turn_completion": f"{head}\n{row['canonical_solution']}".lstrip("\n"),
        "task_desc": "getting a Python function written",
        "single_turn_metadata": {
            "test": row["test"],
            "entry_point": row["entry_point"],
            "libs": row.get("libs", ""),
        },
    }


def _from_medium(row: Row) -> Row:
    """Articles of Medium, `fabiochiu/medium-articles`; document->bleu is their metric."""
    return {
        "single_turn_prompt": f'An article with the title "{row["title"]}" that says what this '
        f"one says:\n\n{row['text']}",
        "single_turn_completion": row["text"],
        "task_desc": "getting an article written",
        "single_turn_metadata": {"title": row["title"]},
    }


def _from_in3(row: Row) -> Row:
    """IN3 (Qian et al. 2024, arXiv:2402.09205) and UserRL's IntentionGym; asking is measured.

    A missing detail is a fact, one of its options (drawn by the texts) what the user wants, its
    importance the weight. What a result must contain is the option without its examples, and
    nothing where the user has no wish. A row that is not vague is a clear request: all asking is
    needless.
    """
    opening = str(row["task"])
    details = row["missing_details"] or [] if row["vague"] else []
    facts = []
    for detail in details:
        options = _whole(detail.get("options") or [])
        wish = _draw(options, f"{opening}{detail['description']}") if options else ""
        facts.append(
            {
                "name": detail["description"],
                "answer": f"{detail['description']}: {wish or 'no preference'}.",
                "value": "" if _NO_WISH.match(wish) else _EXAMPLES.sub("", wish),
                "question": ", ".join(options),
                "weight": float(detail.get("importance") or 1),
            }
        )
    return {
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "task_desc": str(row.get("category") or ""),
        "opening": opening,
        "facts": facts,
        "single_turn_metadata": {"category": row.get("category", ""), "vague": bool(row["vague"])},
    }


def _whole(options: Sequence[str]) -> list[str]:
    """Join what was cut at the commas of "(e.g., S, M)"; return the options without spaces."""
    whole: list[str] = []
    for option in map(str, options):
        if whole and whole[-1].count("(") > whole[-1].count(")"):
            whole[-1] += f", {option.strip()}"
        else:
            whole.append(option.strip())
    return whole


def _from_sharded(row: Row) -> Row:
    """Lost in Conversation (Laban et al. 2025, arXiv:2505.06120): the first shard opens."""
    shards = [
        shard if isinstance(shard, str) else str(shard.get("shard") or shard.get("shard_text"))
        for shard in row["sharded_instructions"]
    ]
    facts = [
        {"name": f"shard {idx}", "answer": shard, "value": "", "question": shard}
        for idx, shard in enumerate(shards[1:], start=2)
    ]
    return {
        "task_id": row.get("task_id"),
        "single_turn_prompt": " ".join(shards),
        "task_desc": str(row.get("task") or ""),
        "opening": shards[0],
        "facts": facts,
        "single_turn_metadata": {"task": row.get("task", "")},
    }


def _from_mediq(row: Row) -> Row:
    """MediQ (Li et al. 2024, arXiv:2406.00922): a patient who tells a fact when asked for it."""
    options = row["options"]
    letters = options.items() if isinstance(options, Mapping) else enumerate(options, start=1)
    choices = " ".join(f"{letter}: {text}" for letter, text in letters)
    context = row["context"]
    first = context[0] if isinstance(context, list) and context else str(context).split(". ")[0]
    facts = [
        {"name": f"fact {idx}", "answer": fact, "value": "", "question": fact}
        for idx, fact in enumerate(row["facts"] or [], start=1)
    ]
    opening = f"{first} {row['question']} {choices}"
    return {
        "task_id": None if row.get("id") is None else str(row["id"]),
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "single_turn_completion": str(row.get("answer") or row.get("answer_idx") or ""),
        "task_desc": "getting a medical question answered",
        "opening": opening,
        "facts": facts,
    }


def _from_abg_coqa(row: Row) -> Row:
    """Abg-CoQA (Guo et al. 2021): a question about a story, ambiguous or not."""
    turn = row.get("target_turn") or {}
    question = str(turn.get("question") or row.get("question") or "")
    opening = f"{row['story']}\n\n{question}"
    clarification = row["clarification_turn"] or {}
    answers = clarification.get("answers") or []
    meant = _draw(answers, opening) if answers else {}
    facts = []
    if str(row["ambiguity"]) == "ambiguous" and clarification.get("question"):
        reply = str(meant.get("clr_ans") or meant.get("answer") or "")
        asked = str(clarification["question"])
        facts = [{"name": "what is meant", "answer": reply, "value": "", "question": asked}]
    return {
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "single_turn_completion": str(meant.get("org_ans") or turn.get("answer") or ""),
        "task_desc": "getting a question about a story answered",
        "opening": opening,
        "facts": facts,
        "single_turn_metadata": {"ambiguity": str(row["ambiguity"])},
    }


def _draw(options: Sequence[Any], text: str) -> Any:
    """Draw one by the hash of a text: the same row gives the same one."""
    digest = hashlib.sha256(text.encode()).digest()
    return options[int.from_bytes(digest[:4], "big") % len(options)]


_SHAPES: Mapping[tuple[str, ...], Callable[[Row], Row | None]] = {
    _BIGCODEBENCH: _from_bigcodebench,
    _MATH: _from_math,
    _IN3: _from_in3,
    _SHARDED: _from_sharded,
    _MEDIQ: _from_mediq,
    _ABG_COQA: _from_abg_coqa,
    _MEDIUM: _from_medium,
}
"""What tells a source by its columns, and how a row becomes a task."""
