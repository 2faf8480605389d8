"""A multi-turn dataset as conversations: each turn's candidates, and which one was gone on with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from collabllm.evaluation.report.conversations import Conversation, show_message

Row = Mapping[str, Any]
BEST_SCORE = "best score, mean over turns"


def show_turns(conv_id: Any, rows: Iterable[Row]) -> Conversation:
    """Show one conversation of a dataset with the candidates of every turn.

    The reply that a conversation went on with stands in the next turn's prompt: that one is shown,
    whether or not it is the best-scored one, and even if it is no candidate. After the last turn
    nothing tells, unless a row is marked as `chosen`; the best-scored reply is shown as just that.

    Args:
        conv_id: Its name.
        rows: Rows of this conversation, in any order.
    """
    turns: dict[int, list[Row]] = {}
    for row in rows:
        turns.setdefault(row.get("turn_id") or len(row["prompt"]), []).append(row)
    messages: list[dict[str, Any]] = []
    context: list[Row] = []
    ending = ""
    order = sorted(turns)
    for turn_id, next_id in zip(order, [*order[1:], None], strict=True):
        rows = sorted(turns[turn_id], key=lambda row: -row["score"])
        prompt = rows[0]["prompt"]
        following = _reply_after(prompt, turns[next_id][0]["prompt"]) if next_id else None
        text, marked, why = _choose(rows, following, is_last=next_id is None)
        if not _continues(context, prompt):
            messages.append({"role": "note", "content": "The next turn begins otherwise:"})
            context = []
        messages += [show_message(m) for m in prompt[len(context) :]]
        reply = show_message({"role": "assistant", "content": text})
        reply["candidates"] = [_candidate(row, row is marked) for row in rows]
        reply["why"] = why
        messages.append(reply)
        context = [*prompt, reply]
        ending = next(filter(None, (row.get("termination_reason") for row in rows)), ending)
    first = turns[order[0]][0]
    best = [max(row["score"] for row in rows) for rows in turns.values()]
    return Conversation(
        str(conv_id),
        "dataset",
        ending=ending or f"{len(turns)} turns",
        scores={BEST_SCORE: round(sum(best) / len(best), 4)},
        goal=first.get("single_turn_prompt") or "",
        messages=messages,
    )


def _reply_after(prompt: Sequence[Row], following: Sequence[Row]) -> str | None:
    """Return the reply to a prompt that a later prompt has; None where it is of another branch."""
    place = len(prompt)
    if len(following) <= place or _texts(following[:place]) != _texts(prompt):
        return None
    reply = following[place]
    return str(reply["content"]) if reply["role"] == "assistant" else None


def _continues(messages: Sequence[Row], prompt: Sequence[Row]) -> bool:
    return _texts(messages) == _texts(prompt[: len(messages)])


def _texts(messages: Sequence[Row]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


def _choose(
    rows: Sequence[Row], following: str | None, *, is_last: bool
) -> tuple[str, Row | None, str]:
    """Return the reply to show, the candidate that it is, and what is known of it.

    Args:
        rows: Candidates of a turn, the best-scored first.
        following: The reply that the next turn's prompt has.
        is_last: Whether no turn follows.
    """
    flagged = next((row for row in rows if row.get("chosen")), None)
    if following is not None:
        same = [row for row in rows if row["completion"] == following]
        if not same:
            return following, None, "went on with another reply, which is no candidate"
        row = flagged if flagged in same else same[0]
        return following, row, f"went on with {_rank(rows, row)}"
    if flagged is not None:
        return flagged["completion"], flagged, f"chosen: {_rank(rows, flagged)}"
    after = "nothing follows" if is_last else "the next turn begins otherwise"
    return rows[0]["completion"], None, f"{after}; shown is {_rank(rows, rows[0])}"


def _rank(rows: Sequence[Row], row: Row) -> str:
    if len(rows) == 1:
        return "the only candidate"
    others = [f"{other['score']:.3f}" for other in rows if other is not row]
    kind = "the best-scored" if row["score"] == rows[0]["score"] else "a lower-scored"
    return f"{kind} ({row['score']:.3f} against {', '.join(others)})"


def _candidate(row: Row, marked: bool) -> dict[str, Any]:
    rewards = row.get("rewards") or {}
    return {
        "text": row["completion"],
        "score": _round(row["score"]),
        "standard_error": _round(row.get("standard_error")),
        "chosen": marked,
        "proactive": bool(row.get("proactive")),
        "rewards": {
            name: [_round(v) for v in value] if isinstance(value, list) else _round(value)
            for name, value in rewards.items()
            if value is not None
        },
        "futures": [[show_message(m) for m in session] for session in row.get("sessions") or []],
    }


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
