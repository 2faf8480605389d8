"""Rows of other people's datasets, turned into the columns of a task."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabllm.data_processing.formats import to_goal
from collabllm.files import find_split_file
from collabllm.hub import check_reachable
from collabllm.messages import shorten

_MATH = ("problem", "solution")
_BIGCODEBENCH = ("instruct_prompt", "canonical_solution", "test", "entry_point")
_MEDIUM = ("title", "text")
_NO_WISH = re.compile(r"(no|none|not|any|yes|all)\b", re.IGNORECASE)  # no result quotes these
_EXAMPLES = re.compile(r"\s*\([^()]*\)$")
_HARDEST = "Level 5"
_IN3 = ("task", "vague", "missing_details")
_SHARDED = (("shards",), ("sharded_instructions",))
_MEDIQ = (
    ("question", "context", "options", "facts"),
    ("question", "context", "options", "atomic_facts"),
)
_ABG_COQA = ("story", "ambiguity")

Row = Mapping[str, Any]


def iter_rows(
    path: str | Path, split: str = "train", config: str | None = None
) -> Iterator[tuple[str, Row]]:
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
        rows = load_dataset(str(path), config, split=split, streaming=True)
    for idx, row in enumerate(rows, start=1):
        yield f"row {idx}", row


def recognise(row: Row, columns: Mapping[str, str] | None, where: str) -> Row | str:
    """Give a row the columns of a task, by a column map or by the shape of a known source.

    Args:
        row: As it is in the dataset.
        columns: Our column name to theirs.
        where: Position of the row, for errors.

    Returns:
        A row with `single_turn_prompt`, or why it is left out (MATH below level 5, say).

    Raises:
        ValueError: If a mapped column is not there, a row of conversations has none, or a column
            of a known source has not what belongs there.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: a row must be an object, got {shorten(row)}.")
    if columns:
        missing = [theirs for theirs in columns.values() if theirs not in row]
        if missing:
            raise ValueError(
                f"{where}: has no column {', '.join(missing)}; it has {', '.join(row)}."
            )
        return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}}
    if "single_turn_prompt" in row:
        return row
    try:
        for columns_of, convert in _SHAPES.items():
            if all(name in row for name in columns_of):
                return convert(row)
        return to_goal(row) or row
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _from_math(row: Row) -> Row | str:
    """MATH (Hendrycks et al. 2021), for example `lighteval/MATH-Hard`; accuracy is its metric."""
    if row.get("level", _HARDEST) != _HARDEST:
        return f"below {_HARDEST}"
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


def _from_in3(row: Row) -> Row | str:
    """IN3 (Qian et al. 2024, arXiv:2402.09205) and UserRL's IntentionGym; asking is measured.

    A missing detail is a fact, one of its options (drawn by the texts) what the user wants, its
    importance the weight. What a result must contain is the option without its examples, and
    nothing where the user has no wish. A row that is not vague is a clear request: all asking is
    needless. A vague one without details is left out: nobody can say what to ask.
    """
    opening = _text(row, "task")
    vague = _flag(row, "vague")
    details = _rows(row, "missing_details") if vague else []
    if vague and not details:
        return "vague, and without missing details"
    facts: list[dict[str, Any]] = []
    for detail in details:
        name = _text(detail, "description")
        options = _whole(_list(detail, "options"))
        wish = _draw(options, f"{opening}{name}") if options else ""
        facts.append(
            {
                "name": name,
                "answer": f"{name}: {wish or 'no preference'}.",
                "value": "" if _NO_WISH.match(wish) else _EXAMPLES.sub("", wish),
                "question": ", ".join(options),
                "weight": detail.get("importance"),
            }
        )
    return {
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "task_desc": str(row.get("category") or ""),
        "opening": opening,
        "facts": _numbered(facts),
        "single_turn_metadata": {"category": row.get("category", ""), "vague": vague},
    }


def _whole(options: Sequence[str]) -> list[str]:
    """Join what was cut at the commas of "(e.g., S, M)"; return the options without spaces."""
    whole: list[str] = []
    for option in map(str, (option for option in options if option is not None)):
        if whole and whole[-1].count("(") > whole[-1].count(")"):
            whole[-1] += f", {option.strip()}"
        else:
            whole.append(option.strip())
    return whole


def _from_sharded(row: Row) -> Row:
    """Lost in Conversation (Laban et al. 2025, arXiv:2505.06120): the first shard opens."""
    column = "shards" if "shards" in row else "sharded_instructions"
    shards = [_shard(shard, column) for shard in _list(row, column)]
    if not shards:
        raise ValueError(f"{column} is empty.")
    facts = [
        {"name": f"shard {idx}", "answer": shard, "value": "", "question": shard}
        for idx, shard in enumerate(shards[1:], start=2)
    ]
    answer = row.get("answer")
    return {
        "task_id": row.get("task_id"),
        "single_turn_prompt": " ".join(shards),
        "single_turn_completion": answer if isinstance(answer, str) else "",
        "task_desc": str(row.get("task") or ""),
        "opening": shards[0],
        "facts": facts,
        "single_turn_metadata": {"task": row.get("task", "")},
    }


def _shard(shard: Any, column: str) -> str:
    if isinstance(shard, Mapping):
        name = next((name for name in ("shard", "shard_text", "text") if shard.get(name)), "shard")
        return _text(shard, name)
    return _text({column: shard}, column)


def _from_mediq(row: Row) -> Row:
    """MediQ (Li et al. 2024, arXiv:2406.00922): a patient who tells a fact when asked for it.

    The first sentence of the case opens; a fact that it holds is none.
    """
    options = row["options"]
    if isinstance(options, Mapping):
        letters: Any = options.items()
    else:
        letters = enumerate(_list(row, "options"), start=1)
    choices = " ".join(f"{letter}: {text}" for letter, text in letters if text is not None)
    if isinstance(row["context"], str):
        first = row["context"].split(". ")[0]
    else:
        first = next((str(sentence) for sentence in _list(row, "context") if sentence), "")
    known = [str(fact) for fact in _list(row, "facts") or _list(row, "atomic_facts") if fact]
    facts = [
        {"name": f"fact {idx}", "answer": fact, "value": "", "question": fact}
        for idx, fact in enumerate(known, start=1)
        if fact.rstrip(".") not in first
    ]
    opening = " ".join(part for part in (first, _text(row, "question"), choices) if part)
    return {
        "task_id": None if row.get("id") is None else str(row["id"]),
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "single_turn_completion": str(row.get("answer") or row.get("answer_idx") or ""),
        "task_desc": "getting a medical question answered",
        "opening": opening,
        "facts": facts,
    }


def _from_abg_coqa(row: Row) -> Row | str:
    """Abg-CoQA (Guo et al. 2021): a question about a story, ambiguous or not.

    What was asked and answered before it stands between the two.
    """
    turn = _object(row, "target_turn")
    question = _text({"question": turn.get("question") or row.get("question")}, "question")
    history = [
        f"{_text(past, 'question')} {past.get('answer') or ''}".strip()
        for past in _rows(row, "history_turns")
    ]
    opening = "\n\n".join(
        [_text(row, "story"), *(["\n".join(history)] if history else []), question]
    )
    clarification = _object(row, "clarification_turn")
    answers = _rows(clarification, "answers")
    meant = _draw(answers, opening) if answers else {}
    original = next((name for name in meant if name.startswith("org_ans")), "")
    facts = []
    if row["ambiguity"] not in ("ambiguous", "non_ambiguous"):
        raise ValueError(
            "ambiguity must be ambiguous or non_ambiguous, got " + shorten(row["ambiguity"]) + "."
        )
    if row["ambiguity"] == "ambiguous":
        reply = str(meant.get("clr_ans") or meant.get("answer") or "").strip()
        if not reply or not clarification.get("question"):
            return "ambiguous, and without a clarification"
        asked = str(clarification["question"])  # the reply alone may stand in the story
        facts = [{"name": "what is meant", "answer": f"I mean this: {reply}", "question": asked}]
    return {
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "single_turn_completion": str(meant.get(original) or turn.get("answer") or ""),
        "task_desc": "getting a question about a story answered",
        "opening": opening,
        "facts": facts,
        "single_turn_metadata": {"ambiguity": str(row["ambiguity"])},
    }


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a non-empty text, got {shorten(value)}.")
    return value


def _list(row: Row, name: str) -> list[Any]:
    value = row.get(name)
    if value is None:
        return []
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list, got {shorten(value)}.")
    return list(value)


def _object(row: Row, name: str) -> Row:
    value = row.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object, got {shorten(value)}.")
    return value or {}


def _rows(row: Row, name: str) -> list[Row]:
    found = _list(row, name)
    for entry in found:
        if not isinstance(entry, Mapping):
            raise ValueError(f"{name} must be a list of objects, got {shorten(entry)} in it.")
    return found


def _flag(row: Row, name: str) -> bool:
    value = row[name]
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise ValueError(f"{name} must be true or false, got {shorten(value)}.")


def _numbered(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell facts of one name apart."""
    taken: set[str] = set()
    for fact in facts:
        name, number = fact["name"], 1
        while fact["name"] in taken:
            number += 1
            fact["name"] = f"{name} ({number})"
        taken.add(fact["name"])
    return facts


def _draw(options: Sequence[Any], text: str) -> Any:
    """Draw one by the hash of a text: the same row gives the same one."""
    digest = hashlib.sha256(text.encode()).digest()
    return options[int.from_bytes(digest[:4], "big") % len(options)]


_SHAPES: Mapping[tuple[str, ...], Callable[[Row], Row | str]] = {
    _BIGCODEBENCH: _from_bigcodebench,
    _MATH: _from_math,
    _IN3: _from_in3,
    **dict.fromkeys(_SHARDED, _from_sharded),
    **dict.fromkeys(_MEDIQ, _from_mediq),
    _ABG_COQA: _from_abg_coqa,
    _MEDIUM: _from_medium,
}
"""What tells a source by its columns, and how a row becomes a task."""
