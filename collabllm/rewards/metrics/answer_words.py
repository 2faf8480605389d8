"""Write the words, numbers, dates and times of answers in one way, so that they compare."""

import re

from collabllm.tasks.words import join_thousands, space_out

WORD = re.compile(r"(?:(?<!\w)-(?=\d))?\w+(?:(?<=\d)[.:](?=\d)\w+)*")
"""A word of a plain text; also a number with its minus and points, a date and a time."""

# A point that ends a sentence, too, stays.
_AM_OR_PM = re.compile(r"(?<=\d)[^\S\n]*([apAP])\.?\s?[mM]\b(?:\.(?!\s+[A-Z](?![A-Z])))?")
_DATE = re.compile(r"(?<!\d)(?<!\d[-/.])(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?!\2?\d)")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ZERO_OF_TIME = re.compile(r"(?<![\d:])0(?=\d:\d\d)")


def to_plain(text: str) -> str:
    """Write 1,200 as 1200, 05/12/2024 as 5.12.2024, 08:30 a.m. as 8:30 am; space unspaced letters.

    Its sentences stay what they are.
    """
    text = _AM_OR_PM.sub(r" \1m", _TEXT.sub(r"\1", text))
    text = _ZERO_OF_TIME.sub("", _DATE.sub(_dotted, text))
    return space_out(join_thousands(text))


def normalize(text: str) -> str:
    """Return the words of a plain text in lower case, without punctuation and articles."""
    words = WORD.findall(text.casefold())
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def _dotted(date: re.Match[str]) -> str:
    return ".".join(str(int(part)) for part in date.group(1, 3, 4))
