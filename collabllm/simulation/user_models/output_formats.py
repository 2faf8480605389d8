"""Read a simulated user's JSON, tolerantly, without ever changing what a text says."""

import json
from typing import Any

import json_repair

FIELDS = ("thought", "current_answer", "slip", "slipped", "response")


def parse_user_output(text: str) -> dict[str, str] | None:
    """Read the fields of a user's turn from a model's output.

    Fences, prose around the object, trailing commas and triple quotes are tolerated. A value of
    `42` or `true` becomes the text `42` or `true`; unicode stays as it is.

    Returns:
        All `FIELDS` as texts, empty where missing, or None when there is no readable `response`,
        or when it is nested too deep to be read.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0:
        return None
    body = text[start : end + 1] if end > start else text[start:]
    try:
        parsed = _parse(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("response"), str | int | float):
        return None
    return {field: _to_text(parsed.get(field)) for field in FIELDS}


def _parse(body: str) -> Any:
    try:
        return json.loads(body, parse_int=str, parse_float=str, parse_constant=str, strict=False)
    except json.JSONDecodeError:
        return json_repair.loads(body.replace('"""', '"'), skip_json_loads=True)


def _to_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value, ensure_ascii=False)
