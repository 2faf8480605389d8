"""Another value of the same look: as likely, as long, in either direction."""

import ast
import random
import string

_TRIES = 20  # until a value is not in the set already


def other_literal(node: ast.expr, rng: random.Random) -> ast.expr | None:
    """Return a literal of the same look and another value, or None where it is no literal."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
    other = _different(value, rng)
    return None if other is None else ast.parse(repr(other), mode="eval").body


def _different(value: object, rng: random.Random) -> object:
    match value:
        case bool():
            return not value
        case int():
            return _other_int(value, rng)
        case float():
            return _other_float(value, rng)
        case str() if value:
            return _other_text(value, rng)
        case list() | tuple() if value:
            idx = rng.randrange(len(value))
            new = _different(value[idx], rng)
            return None if new is None else type(value)([*value[:idx], new, *value[idx + 1 :]])
        case set() if value:
            left_out = rng.choice(sorted(value, key=repr))
            others = [_different(left_out, rng) for _ in range(_TRIES)]
            new = next((other for other in others if other not in value), None)
            return None if new is None else {*(value - {left_out}), new}
        case dict() if value:
            key = rng.choice(list(value))
            new = _different(value[key], rng)
            return None if new is None else {**value, key: new}
    return None


def _other_int(value: int, rng: random.Random) -> int:
    step = rng.choice((1, 1, 2, 2, 3, 4, max(5, abs(value) // 3)))
    down = value - step
    return down if rng.random() < 0.5 and (down >= 0 or value < 0) else value + step


def _other_float(value: float, rng: random.Random) -> float:
    digits = len(repr(value).partition(".")[2]) if "e" not in repr(value) else 12
    other = round(value * rng.choice((0.4, 0.6, 0.8, 1.2, 1.4, 1.9)), digits)
    return other if other != value else value + rng.choice((-1.0, 1.0))


def _other_text(value: str, rng: random.Random) -> str:
    """Change a digit, else swap two words, else change a letter for one of its kind."""
    digits = [idx for idx, letter in enumerate(value) if letter in string.digits]
    words = value.split(" ")
    if digits:
        return _with_other(value, rng.choice(digits), string.digits, rng)
    if len(set(words)) > 1:
        first, second = rng.sample(range(len(words)), 2)
        while words[first] == words[second]:
            first, second = rng.sample(range(len(words)), 2)
        words[first], words[second] = words[second], words[first]
        return " ".join(words)
    letters = [idx for idx, letter in enumerate(value) if letter in string.ascii_letters]
    idx = rng.choice(letters) if letters else rng.randrange(len(value))
    for group in ("aeiou", "AEIOU", string.ascii_lowercase, string.ascii_uppercase):
        if value[idx] in group:
            return _with_other(value, idx, group, rng)
    return value[:idx] + value[idx + 1 :] or "a"


def _with_other(value: str, idx: int, group: str, rng: random.Random) -> str:
    letter = rng.choice([other for other in group if other != value[idx]])
    return value[:idx] + letter + value[idx + 1 :]
