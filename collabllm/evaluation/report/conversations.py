"""Transcripts and datasets as the conversations that the viewer shows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from collabllm.evaluation.report.tables import group_title
from collabllm.tasks.matching import find_questions

Conversation = dict[str, Any]


def from_transcript(
    line: Mapping[str, Any], arm: str | None = None, score: Mapping[str, Any] | None = None
) -> Conversation:
    """Show one line of a transcript file, with the scores of an evaluation where there are some."""
    title = group_title(score["user"], score["num_told"]) if score else f"user {line['user']}"
    values = score["values"] if score else {}
    return {
        "task": line["task_id"],
        "arm": arm or line["assistant"],
        "group": title,
        "rollout": line["rollout_idx"],
        "outcome": line["termination_reason"],
        "goal": line["single_turn_prompt"],
        "error": line.get("error", ""),
        "scores": {name: round(v, 4) for name, v in values.items() if v is not None},
        "missing": dict(score["missing"]) if score else {},
        "faults": [name for name, found in line.get("audit", {}).items() if found],
        "messages": _with_scores(line["messages"], score["replies"] if score else []),
        "ending": next((t["response"] for t in line.get("user_turns", []) if t["is_terminal"]), ""),
    }


def _with_scores(
    messages: Sequence[Mapping[str, Any]], replies: Sequence[Mapping[str, int]]
) -> list[dict[str, Any]]:
    """Put each reply's counts beside it, where an evaluation has them."""
    left = iter(replies)
    shown = [_message(message) for message in messages]
    for message in shown:
        counts = next(left, None) if message["role"] == "assistant" else None
        if counts:
            parts = [_plural(counts["tokens"], "token"), _plural(counts["questions"], "question")]
            if counts.get("needless"):
                parts.append(f"{counts['needless']} needless")
            if counts.get("facts_told"):
                parts.append(f"{_plural(counts['facts_told'], 'fact')} told next")
            message["note"] = ", ".join(parts)
    return shown


def from_dataset(rows: Iterable[Mapping[str, Any]]) -> list[Conversation]:
    """Show a multi-turn dataset: each conversation with the candidates of every turn.

    The reply that the conversation went on with is the `chosen` row, or the best-scored one.
    """
    conversations: dict[Any, dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        turns = conversations.setdefault(row["conv_id"], {})
        turns.setdefault(row.get("turn_id") or len(row["prompt"]), []).append(row)
    return [_from_turns(conv_id, turns) for conv_id, turns in conversations.items()]


def _from_turns(conv_id: Any, turns: Mapping[int, Sequence[Mapping[str, Any]]]) -> Conversation:
    messages: list[dict[str, Any]] = []
    outcome = ""
    for turn_id in sorted(turns):
        rows = sorted(turns[turn_id], key=lambda row: -row["score"])
        chosen = next((row for row in rows if row.get("chosen")), rows[0])
        prompt = chosen["prompt"]
        messages += [_message(m) for m in prompt[len(messages) :]]
        reply = _message({"role": "assistant", "content": chosen["completion"]})
        reply["candidates"] = [_candidate(row, row is chosen) for row in rows]
        reply["why"] = _why(rows, chosen)
        messages.append(reply)
        outcome = chosen.get("termination_reason") or outcome
    first = next(iter(turns.values()))[0]
    best = [max(row["score"] for row in rows) for rows in turns.values()]
    return {
        "task": str(conv_id),
        "arm": "dataset",
        "group": "",
        "rollout": 0,
        "outcome": outcome or f"{len(turns)} turns",
        "goal": first.get("single_turn_prompt") or "",
        "error": "",
        "scores": {"best score, mean over turns": round(sum(best) / len(best), 4)},
        "missing": {},
        "faults": [],
        "messages": messages,
        "ending": "",
    }


def _candidate(row: Mapping[str, Any], chosen: bool) -> dict[str, Any]:
    rewards = row.get("rewards") or {}
    return {
        "text": row["completion"],
        "score": round(row["score"], 4),
        "standard_error": _round(row.get("standard_error")),
        "chosen": chosen,
        "proactive": bool(row.get("proactive")),
        "rewards": {
            name: [_round(v) for v in value] if isinstance(value, list) else _round(value)
            for name, value in rewards.items()
            if value is not None
        },
        "futures": [[_message(m) for m in session] for session in row.get("sessions") or []],
    }


def _why(rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> str:
    if len(rows) == 1:
        return "the only candidate"
    others = [row["score"] for row in rows if row is not chosen]
    return f"score {chosen['score']:.3f} against {', '.join(f'{score:.3f}' for score in others)}"


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    text = message["content"]
    shown: dict[str, Any] = {"role": message["role"], "content": text}
    if message["role"] == "assistant":
        words, questions = len(text.split()), len(find_questions(text))
        shown["note"] = f"{_plural(words, 'word')}, {_plural(questions, 'question')}"
    return shown


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
