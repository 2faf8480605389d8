"""Words of a text: which carry meaning, which are new, and whether a value stands among them."""

import re
import unicodedata
from functools import lru_cache

PERSON_WORDS = frozenset("patient man woman boy girl male female she her his him".split())
"""Whom a fact is about: the user says "I" instead."""
DENIAL = re.compile(
    r"\b(?:no|not|none|never|nor|neither|nobody|nothing|without|cannot|dont|den(?:y|ies|ied|ying))\b|"
    r"n['\u2019]t\b",
    re.IGNORECASE,
)
"""Words that deny what stands in their sentence."""
_SHORT = 3  # letters of a value that must have the same case: "Go" is no "go"
_TEENS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBERS = {word: number for number, word in enumerate(_TEENS)} | {
    word: number for number, word in zip(range(20, 100, 10), _TENS, strict=True)
}
_UNITS = "|".join(_TEENS[1:10])
_MEASURES = "(?:year|month|week|day|hour|minute|inch|foot|mile|page)"
_NUMBER_WORD = re.compile(  # "twenty five", but "twenty five-star rooms" are 20
    rf"\b(?:({'|'.join(_TENS)})(?:-({_UNITS})| ({_UNITS})(?!-(?!{_MEASURES})\w))|"
    rf"({'|'.join(_NUMBERS)}))\b",
    re.IGNORECASE,
)
_HUNDREDS = re.compile(  # not in "between one hundred and two hundred", "two hundred and five-star"
    r"(?<![\d.,/])(\d{1,3}) (hundred|thousand)\b"
    r"(?: and (\d\d?)\b(?![.,/:]\d|-\w| (?:hundred|thousand)\b))?",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_EMPHASIS = re.compile(  # of Markdown, on both sides; not within snake_case
    r"(?<!\w)(\*\*|_{1,3})(?=[^\s*_])((?:[^*_\n]|(?<=[^\W_])_+(?=[^\W_]))*+)(?<!\s)\1(?!\w)"
)
_BEFORE_UNIT = re.compile(
    r"(?<=\d)\s*(?=[^\W\d_]{2}|a\.m\b|(?![aAIM](?!\w))[^\W\d_](?!\w)|[%\u00b0$\u00a3\u00a5\u20ac\u200b])"
)
_NO_CAPITAL = r"(?-i:(?!M(?!\w)))"  # "5 m" is no "5M"
_SPACES = re.compile(r"[^\S\n]+")
_LINE_STARTS = re.compile(r"\n\s*")
_LIST_MARK = re.compile(r"^\s*\(?\d{1,2}[.)]\s", re.MULTILINE)
_DASHES = re.compile(r"(?<=[\w%])\s{0,2}[\u2010-\u2015]\s{0,2}|(?<=\d)\s+-\s+(?=\d)")
# "The red one please" has no number; "only one", "at one", "for one guest" and "One." have.
_PRONOUN = re.compile(
    r"\b(?!(?:only|just|exactly|around|about|at|by|until|till|before|after|for|from|to|than|is|are|"
    r"am)\b)[^\W\d_]+\sone\b(?!\s(?!(?:please|of|is|was|are|that|which|who|with|for|in|on|at|and|"
    r"or|to|i|you|we|it|as|but|by|from|when|where|the|a|has|would|will|can)\b)[^\W\d_])|"
    r"\bno\sone\b",
    re.IGNORECASE,
)
# Thai, Lao, Burmese, Khmer, Chinese and Japanese letters: no space stands between their words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_GAP = (
    "\u200b"  # on both sides of such a letter: a class of them in each pattern is slow to compile
)
# Words that say nothing about a task: grammar, and what anybody can write under any request.
_EMPTY = frozenset(
    """
    able about above absolutely according account after again all already also although always and
    any anything approach are aspect based been before being below best better both but can careful
    carefully certainly chosen clear clearly come complete completely confirm consider could course
    definitely detail did does doing done each either else ensure enjoy every everything exactly
    fact final first following for from full fully further get give given glad good got great had
    happy has have having help here hope how however idea important include including indeed
    information input into it item its just keep kind know let like list make made many matter may
    mention mentioned might mind more most much must need needed next nice not note noted now off
    one only option other our out over perfect person place plan please point possible prefer
    preference prepare prepared proceed provide provided put ready really recap received regarding
    request requested requirement response result right said same say see set shall share should
    since solution some something soon specific specified start step still such summarise summarize
    summary sure tailor tailored take tell than thank thanks that the their them then there these
    they thing this those through told too understand understood until upon use used using value
    very want was way well were what when where which while who will wish with within without
    wonderful work would write wrote yes yet you your
    """.split()
)


def content_words(text: str) -> set[str]:
    """Return the words that carry meaning, in lower case and the singular; numbers as digits."""
    words = re.findall(r"[^\W_]+", _with_digits(text.lower()))
    return {
        singular(word)
        for word in words
        if (len(word) > 2 or word.isdigit()) and not {word, singular(word)} & _EMPTY
    }


def find_numbers(text: str) -> set[str]:
    """Return the numbers of a text as digits; "12.50" is one."""
    return set(re.findall(r"\d+(?:[.,]\d+)*", _with_digits(text)))


def contains_value(text: str, value: str) -> bool:
    """Tell whether a value stands in a text, as whole words, whatever the case and spacing.

    A value of up to three letters with a capital keeps its case. "Ten days" is "10 days", "1,200"
    is "1200", "5 km" is "5km"; the number of an item in a list is no value, nor is a part of a
    number: "3" is not in "3.5".
    """
    return _value_pattern(value).search(_where_to_find(value, text)) is not None


def cut_value(text: str, value: str) -> str:
    """Take a value out of a text, wherever `contains_value` finds it."""
    return _value_pattern(value).sub(" . ", _where_to_find(value, text)).replace(_GAP, "")


def join_thousands(text: str) -> str:
    """Write "1,200" as "1200"."""
    return _THOUSANDS.sub("", text)


def is_unspaced(text: str) -> bool:
    """Tell whether a text has letters of a script that puts no spaces between words."""
    return _IS_UNSPACED.search(text) is not None


def space_out(text: str) -> str:
    """Put spaces around the letters of such a script: each can be a word."""
    return _IS_UNSPACED.sub(r" \g<0> ", text)


def singular(word: str) -> str:
    """Take a plural's s off, so that a guest count asks for guests."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


# Nothing of the same number or clock time, and no minus; but "at 10:00" is "at 10".
_BEGINS_NUMBER = r"(?<!\d\.)(?<!\b\d:)(?<!\b\d\d:)(?<!(?<!\w)[.-])"
_ENDS_NUMBER = r"(?!\.\d|:(?!00)[0-5]\d(?!\d))"
# Nor a part of a fraction or a day and month of a date, which have up to two digits.
_BEGINS_SMALL = re.compile(r"\d\d?(?!\d)[^/]*$")
_ENDS_SMALL = re.compile(r"(?:[^/]*[^\d/])?\d\d?$")


@lru_cache(maxsize=10_000)
def _value_pattern(value: str) -> re.Pattern[str]:
    exact = len(value) <= _SHORT and value != value.lower()
    parts = _normalise(_comparable(value)).split() or value.split()
    pieces = _BEFORE_UNIT.split(" ".join(parts))
    words = rf"\s*{_NO_CAPITAL}".join(
        r"\s+".join(map(re.escape, piece.split(" "))) for piece in pieces
    )
    first, last = (parts[0][0], parts[-1][-1]) if parts else ("", "")
    before = r"(?<!\w)" * (first != _GAP) + _BEGINS_NUMBER * first.isdigit()
    after = r"(?!\w)" * (last != _GAP) + _ENDS_NUMBER * last.isdigit()
    before += r"(?<!\b\d/)(?<!\b\d\d/)" * (_BEGINS_SMALL.match(" ".join(parts)) is not None)
    after += r"(?!/\d)" * (_ENDS_SMALL.match(" ".join(parts)) is not None)
    return re.compile(rf"{before}{words}{after}", re.NOFLAG if exact else re.IGNORECASE)


def _where_to_find(value: str, text: str) -> str:
    text = _comparable(text, _is_list(value))
    return _normalise(text) if _normalise(value) != "1" else _normalise(_PRONOUN.sub("_", text))


@lru_cache(maxsize=256)
def _comparable(text: str, is_list: bool = False) -> str:
    """Return a text without the marks of its list, if it is one or said to be a part of one."""
    # Runs of spaces first: the patterns after it would try each place of a run anew.
    text = _LINE_STARTS.sub("\n", _SPACES.sub(" ", text))
    return _LIST_MARK.sub("\n", text) if is_list or _is_list(text) else text


def _is_list(text: str) -> bool:
    return len(_LIST_MARK.findall(text)) > 1


@lru_cache(maxsize=256)
def _normalise(text: str) -> str:
    text = unicodedata.normalize("NFC", text.replace(_GAP, "").replace("\u2212", "-"))
    text = _EMPHASIS.sub(r"\2", _IS_UNSPACED.sub(rf"{_GAP}\g<0>{_GAP}", text))
    return _with_digits(_DASHES.sub("-", _SPACES.sub(" ", text)))


def _with_digits(text: str) -> str:
    """Write all numbers in one way: "twenty-five" as 25, "1,200" as 1200, "5 thousand" as 5000."""
    text = _HUNDREDS.sub(_to_hundreds, _NUMBER_WORD.sub(_to_digits, text))
    return join_thousands(text)


def _to_hundreds(words: re.Match[str]) -> str:
    number, kind, rest = words.groups(default="0")
    return str(int(number) * (100 if kind.lower() == "hundred" else 1000) + int(rest))


def _to_digits(words: re.Match[str]) -> str:
    numbers = [_NUMBERS.get(word.lower()) for word in words.groups() if word]
    known = [number for number in numbers if number is not None]  # "n\u0131ne" is none
    return str(sum(known)) if len(known) == len(numbers) else words[0]
