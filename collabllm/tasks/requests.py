"""Find what a reply asks for: questions, requests without a question mark, items of a list."""

import re

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_URL = re.compile(r"\b(?:https?://|www\.)\S+")
_SENTENCE = re.compile(r"[^.!?\uff1f\n]+(?:[.](?=\w)[^.!?\uff1f\n]+)*[.!?\uff1f]*")
_ITEM = re.compile(r"^\s*(?:[-*\u2022\u2013]|\(?\d{1,2}[.)])\s+(?P<text>.+)$")
_REQUEST = re.compile(
    r"\b(tell me|let me know|(please|kindly|just|could you|can you) (also )?(share|provide|specify|"
    r"give|describe|list|confirm|send|clarify|indicate|name|state|mention|tell|explain|say)|"
    r"i('d| would| will|'ll)? (still )?(need|like|want|have) to know|i('ll| will)? need (you|some|"
    r"more|a few|the following|your)|what i need|(two|three|four|a few|some) (more )?(things|"
    r"details|questions|points)|i'm missing|still missing|missing details?)\b",
    re.IGNORECASE,
)
_STARTS_REQUEST = re.compile(
    r"^\s*(name|give me|share|specify|describe|state|send me|describe|list)\b(?! of)", re.IGNORECASE
)
# Ask for nothing that a task lacks: manners, and offers of more.
_OFFER = re.compile(
    r"\b(let me know (if|should|whether|when|how (it|this|that) go|what you think)|feel free to|"
    r"(is there )?anything else (i can|i could|you|that you)|does (this|that|it) (help|work|look|"
    r"sound)|how does (this|that|it) (look|sound)|what do you think|how are you|how can i help|"
    r"(would you like|do you want|want|shall i|should i)( me to)? (to )?(adjust|change|revise|"
    r"continue|expand|refine|modify|tweak|anything else|any changes|any help|"
    r"help with anything))\b",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\s*[,;:()\u2013\u2014]\s+(?:and\s+|or\s+|plus\s+)?|\s+(?:and|plus|or)\s+", re.IGNORECASE
)
_MIN_LETTERS = 4


def find_questions(text: str) -> list[str]:
    """Return the sentences and list items by which a text asks for something.

    A sentence asks when it ends with a question mark (also a full-width one), or says so ("Tell me
    ...", "Please share ..."). The items of a list ask when the line before the list does. Code and
    addresses are left out, and so are offers ("Let me know if ..."). Takes time linear in the text.
    """
    found: list[str] = []
    list_asks = False
    for line in _URL.sub(" ", _CODE.sub(" ", text)).splitlines():
        if not line.strip():
            continue
        item = _ITEM.match(line)
        if item is None:
            list_asks = _asks(line)
        sentences = _SENTENCE.findall(item["text"] if item else line)
        asking = [s.strip() for s in sentences if _asks(s) and not _is_header(s, line)]
        if item and list_asks and not asking:
            asking = [item["text"].strip()]
        found += [sentence for sentence in asking if _has_letters(sentence)]
    return found


def split_question(question: str) -> list[str]:
    """Split a question, which may ask for several things, into parts; the whole comes first."""
    parts = [part for part in _PART.split(" ".join(question.split())) if _has_letters(part)]
    return [question, *parts] if len(parts) > 1 else [question]


def _asks(sentence: str) -> bool:
    return _OFFER.search(sentence) is None and (
        sentence.rstrip(" \"')*_").endswith(("?", "\uff1f"))
        or _REQUEST.search(sentence) is not None
        or _STARTS_REQUEST.search(sentence) is not None
    )


def _is_header(sentence: str, line: str) -> bool:
    """Tell whether a sentence only announces the list that follows."""
    return sentence.rstrip().endswith(":") and line.rstrip().endswith(":")


def _has_letters(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= _MIN_LETTERS
