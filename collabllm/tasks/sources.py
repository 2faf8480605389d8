"""Rows of other people's datasets, turned into the columns of a task."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from collabllm.data.task_bank import SENTENCE_ENDS, end_sentence
from collabllm.data_processing.formats import to_goal
from collabllm.messages import shorten
from collabllm.tasks.fields import (
    Row,
    read_flag,
    read_list,
    read_object,
    read_optional_text,
    read_rows,
    read_text,
)
from collabllm.tasks.requests import split_sentences
from collabllm.tasks.task import TASK_COLUMNS
from collabllm.tasks.words import DENIAL, PERSON_WORDS, contains_value, content_words

logger = logging.getLogger(__name__)

_MATH = ("problem", "solution")
_BIGCODEBENCH = ("instruct_prompt", "canonical_solution", "test", "entry_point")
_MEDIUM = ("title", "text")
_NO_WISH = re.compile(r"(no|none|not|any|yes|all)\b", re.IGNORECASE)  # no result quotes these
_THOUSANDS = re.compile(r"\d{3}(?!\d|\s?[A-Z][a-z])")  # "101 Main St" is an address
_EXAMPLES = re.compile(r"\s*\([^()]*\)$")
_HARDEST = "Level 5"
_IN3 = ("task", "missing_details")
_SHARDED = (("shards",), ("sharded_instructions",))
_MEDIQ = (
    ("question", "context", "options", "facts"),
    ("question", "context", "options", "atomic_facts"),
)
_ABG_COQA = ("story", "ambiguity")
_NUMBER = re.compile(r"^\s*\d+[.)](?!\d)\s*")  # of a fact
_SEXES = {"man": "male", "boy": "male", "woman": "female", "girl": "female"}


def recognise(row: Row, columns: Mapping[str, str] | None, where: str) -> Row | str:
    """Give a row the columns of a task, by a column map or by the shape of a known source.

    Args:
        row: As it is in the dataset.
        columns: Our column name to theirs.
        where: Position of the row, for errors.

    Returns:
        A row with `single_turn_prompt`, or why it is left out (MATH below level 5, say).

    Raises:
        ValueError: If a mapped column is not there or not one of a task, a row of conversations has
            none, or a column of a known source has not what belongs there.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: a row must be an object, got {shorten(row)}.")
    if columns:
        unknown = [ours for ours in columns if ours not in TASK_COLUMNS]
        if unknown:
            raise ValueError(
                f"--task_columns: a task has no column {', '.join(unknown)}; it has "
                f"{', '.join(TASK_COLUMNS)}."
            )
        missing = [theirs for theirs in columns.values() if theirs not in row]
        if missing:
            raise ValueError(
                f"{where}: has no column {', '.join(missing)}; it has {', '.join(row)}."
            )
        return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}}
    if row.get("single_turn_prompt") is not None:
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
    level = row.get("level")
    if level is not None and str(level).removeprefix("Level ") not in ("5", "5.0"):
        return f"below {_HARDEST}"
    return {
        "single_turn_prompt": read_text(row, "problem"),
        "single_turn_completion": read_text(row, "solution"),
        "task_desc": "getting a mathematical problem solved",
        "single_turn_metadata": {"type": row.get("type", ""), "level": _HARDEST},
    }


def _from_bigcodebench(row: Row) -> Row:
    """BigCodeBench (Zhuo et al. 2024), `bigcode/bigcodebench`; pass_rate is its metric."""
    head = str(row.get("code_prompt") or "").rstrip()  # the solution is what stands below it
    return {
        "task_id": row.get("task_id"),
        "single_turn_prompt": read_text(row, "instruct_prompt"),
        "single_turn_completion": f"{head}\n{read_text(row, 'canonical_solution')}".lstrip("\n"),
        "task_desc": "getting a Python function written",
        "single_turn_metadata": {
            "test": read_text(row, "test"),
            "entry_point": read_text(row, "entry_point"),
            "libs": row.get("libs", ""),
        },
    }


def _from_medium(row: Row) -> Row:
    """Articles of Medium, `fabiochiu/medium-articles`; document->bleu is their metric."""
    title, text = read_text(row, "title"), read_text(row, "text")
    return {
        "single_turn_prompt": f'An article with the title "{title}" that says what this one says:'
        f"\n\n{text}",
        "single_turn_completion": text,
        "task_desc": "getting an article written",
        "single_turn_metadata": {"title": title},
    }


def _from_in3(row: Row) -> Row | str:
    """IN3 (Qian et al. 2024, arXiv:2402.09205) and UserRL's IntentionGym; asking is measured.

    A missing detail is a fact, one of its options (drawn by the texts) what the user wants, its
    importance the weight. What a result must contain is the option without its examples, and
    nothing where the user has no wish. A row that is not vague is a clear request: all asking is
    needless. A vague one without details is left out: nobody can say what to ask. Without a column
    `vague`, as IntentionGym has none, the details say it.
    """
    opening = read_text(row, "task")
    has_flag = row.get("vague") is not None
    is_clear = has_flag and not read_flag(row, "vague")
    details = [] if is_clear else read_rows(row, "missing_details")
    vague = not is_clear if has_flag else bool(details)
    if vague and not details:
        return "vague, and without missing details"
    facts: list[dict[str, Any]] = []
    for detail in details:
        name = read_text(detail, "description")
        options = _whole(read_list(detail, "options"))
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
        "task_id": read_optional_text(row, "id"),
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "task_desc": str(row.get("category") or ""),
        "opening": opening,
        "facts": _numbered(facts),
        "single_turn_metadata": {"category": row.get("category", ""), "vague": vague},
    }


def _whole(options: Sequence[Any]) -> list[str]:
    """Join what was cut at the commas of "(e.g., S, M)" and "$1,000, $5,000"; strip the options.

    Where a list was cut, options begin with the space after their comma; numbers do not.
    """
    texts = [read_optional_text({"an option": option}, "an option") for option in options]
    was_cut = any(text.startswith(" ") for text in texts)
    whole: list[str] = []
    for option in filter(str.strip, texts):
        if whole and was_cut and whole[-1][-1].isdigit() and _THOUSANDS.match(option):
            whole[-1] += f",{option.strip()}"
        elif whole and whole[-1].count("(") > whole[-1].count(")"):
            whole[-1] += f", {option.strip()}"
        else:
            whole.append(option.strip())
    return whole


def _from_sharded(row: Row) -> Row:
    """Lost in Conversation (Laban et al. 2025, arXiv:2505.06120): the first shard opens."""
    column = "shards" if "shards" in row else "sharded_instructions"
    shards = [_shard(shard, column) for shard in read_list(row, column)]
    if not shards:
        raise ValueError(f"{column} is empty.")
    facts = [
        {"name": f"shard {idx}", "answer": shard, "value": "", "question": shard}
        for idx, shard in _without_repeats(shards[1:], start=2)
    ]
    answer = row.get("answer")  # of some tasks no text
    return {
        "task_id": row.get("task_id"),
        "single_turn_prompt": " ".join(shards),
        "single_turn_completion": str(answer) if isinstance(answer, (str, int, float)) else "",
        "task_desc": str(row.get("task") or ""),
        "opening": shards[0],
        "facts": facts,
        "single_turn_metadata": {"task": row.get("task", "")},
    }


def _shard(shard: Any, column: str) -> str:
    if isinstance(shard, Mapping):
        name = next((name for name in ("shard", "shard_text", "text") if shard.get(name)), "shard")
        return read_text(shard, name)
    return read_text({column: shard}, column)


def _from_mediq(row: Row) -> Row:
    """MediQ (Li et al. 2024, arXiv:2406.00922): a patient who tells a fact when asked for it.

    The first sentence of the case opens; a fact that it holds is none. Where no facts are listed,
    the other sentences are.
    """
    options = row["options"]
    if isinstance(options, Mapping):
        letters: Any = options.items()
    else:
        letters = enumerate(read_list(row, "options"), start=1)
    choices = " ".join(f"{letter}: {text}" for letter, text in letters if text is not None)
    context = row["context"]
    case = split_sentences(context) if isinstance(context, str) else read_list(row, "context")
    case = [end_sentence(sentence) for sentence in _read_texts(case, "a sentence of context")]
    first = case[0] if case else ""
    listed = read_list(row, "facts") or read_list(row, "atomic_facts") or case[1:]
    known = [_NUMBER.sub("", fact).strip() for fact in _read_texts(listed, "a fact")]
    facts = [
        {"name": f"fact {idx}", "answer": fact, "value": "", "question": fact}
        for idx, fact in _without_repeats(known, start=1)
        if not _is_in(fact, first)
    ]
    opening = " ".join(part for part in (first, read_text(row, "question"), choices) if part)
    return {
        "task_id": read_optional_text(row, "id"),
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "single_turn_completion": str(row.get("answer") or row.get("answer_idx") or ""),
        "task_desc": "getting a medical question answered",
        "opening": opening,
        "facts": facts,
    }


def _read_texts(texts: Sequence[Any], name: str) -> list[str]:
    """Return the texts of a list without spaces around them; blank ones are left out."""
    read = (read_optional_text({name: text}, name).strip() for text in texts)
    return [text for text in read if text]


def _is_in(fact: str, sentence: str) -> bool:
    """Tell whether a sentence has all words of a fact, whatever it calls the patient."""
    if DENIAL.search(fact) and not DENIAL.search(sentence):
        return False
    words, known = (
        {_SEXES.get(word, word) for word in content_words(text)} for text in (fact, sentence)
    )
    if not words:  # such as two Chinese letters
        return contains_value(sentence, fact.rstrip(SENTENCE_ENDS))
    return words <= known | (PERSON_WORDS - set(_SEXES.values()))


def _from_abg_coqa(row: Row) -> Row | str:
    """Abg-CoQA (Guo et al. 2021): a question about a story, ambiguous or not.

    What was asked and answered before it stands between the two.
    """
    turn = read_object(row, "target_turn")
    question = read_text({"question": turn.get("question") or row.get("question")}, "question")
    history = [
        f"{read_text(past, 'question')} {past.get('answer') or ''}".strip()
        for past in read_rows(row, "history_turns")
    ]
    opening = "\n\n".join(
        [read_text(row, "story"), *(["\n".join(history)] if history else []), question]
    )
    clarification = read_object(row, "clarification_turn")
    answers = read_rows(clarification, "answers")
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
        facts = [{"name": "what I mean", "answer": f"I mean this: {reply}", "question": asked}]
    return {
        "single_turn_prompt": " ".join([opening, *(fact["answer"] for fact in facts)]),
        "single_turn_completion": str(meant.get(original) or turn.get("answer") or ""),
        "task_desc": "getting a question about a story answered",
        "opening": opening,
        "facts": facts,
        "single_turn_metadata": {"ambiguity": str(row["ambiguity"])},
    }


def _without_repeats(texts: Sequence[str], start: int) -> list[tuple[int, str]]:
    """Number texts, and leave out what one says again."""
    first: dict[str, int] = {}
    for idx, text in enumerate(texts, start):
        if first.setdefault(text, idx) != idx:
            logger.warning("A task says one fact twice, which counts once: %s.", shorten(text))
    return [(idx, text) for text, idx in first.items()]


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
