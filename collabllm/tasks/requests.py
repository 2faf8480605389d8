"""Find what a reply asks for: questions, requests without a question mark, items of a list."""

import re

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_URL = re.compile(r"\b(?:https?://|www\.)\S+")
_MARKS = "?\uff1f\u061f"  # also the full-width and the Arabic one
_SENTENCE = re.compile(rf"[^.!{_MARKS}\n]+(?:[.](?=\w)[^.!{_MARKS}\n]+)*[.!{_MARKS}]*")
_ITEM = re.compile(r"^\s*(?:[-*\u2022\u2013]|\(?\d{1,2}[.)])\s+(?P<text>.+)$")
_REQUEST = re.compile(
    r"\b(tell me|let me know|(please|kindly|just|could you|can you) (also )?(share|provide|specify|"
    r"give|describe|list|confirm|send|clarify|indicate|name|state|mention|tell|explain|say)|"
    r"i('d| would| will|'ll)? (still )?(need|like|want|have) to know|i('ll| will)? need (you|more|"
    r"some (more )?(info|details|clarification)|a few|the following|your)|what i need|"
    r"(two|three|four|a few|some) (more )?questions|"
    r"(i|we)\b[^.!?:]{0,30}\b(need|require|lack)\b[^.!?:]{0,20}\b(two|three|four|a few|some|"
    r"more|the following) (more )?(things|details|points|information)|i'm missing|still missing|"
    r"missing details?)\b|\bi('d|'ll| would| will)? (also |still |first )?(need|require):\s*$|"
    r"\bbefore i (start|begin|answer|can|do|write)\b[^.!?]*:\s*$",
    re.IGNORECASE,
)
_STARTS_REQUEST = re.compile(
    r"^\s*(give me|send me|specify|(name|share|describe|state|list) "
    r"(a|an|me|your|the|any|all|which|what|how|where|when|who|if|whether))\b",
    re.IGNORECASE,
)
# Ask for nothing that a task lacks: manners, and offers of more.
_OFFER = re.compile(
    r"\b(let me know (if|should|whether|when|how (it|this|that) go|what you think|"
    r"your (thoughts|opinion|feedback)(?=\W*$))|feel free to|"
    r"(is there )?anything else (i can|i could|you|that you)|does (this|that|it) (help|work|look|"
    r"sound)|how does (this|that|it) (look|sound)|"
    r"what do you think(?=( (of|about) (this|that|these|the|it)( \w+)?)?\W*$)|"
    r"how are you(?=( doing| today)*\W*$)|"
    r"\u4f60\u597d\u5417|how can i help|"
    r"(would you like|do you want|want|shall i|should i)( me to)? (to )?(adjust|"
    r"change|revise|continue(?! \w+ing| by)|expand|refine|modify|tweak|anything else|any changes|"
    r"any help|help with anything))\b",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\s*[,;:()\u2013\u2014]\s+(?:and\s+|or\s+|plus\s+)?|\s+(?:and|plus|or)\s+", re.IGNORECASE
)
_MIN_LETTERS = 3  # "Why?"


def find_questions(text: str) -> list[str]:
    """Return the sentences and list items by which a text asks for something.

    A sentence asks when it ends with a question mark (also a full-width or Arabic one), or says so
    ("Tell me ...", "Please share ..."). The items of a list ask when the line before the list does;
    where that does not, an item that begins as an order ("List your expenses.") is advice. Code and
    addresses are left out, and so are offers ("Let me know if ..."). Takes time linear in the text.
    """
    found: list[str] = []
    list_asks: bool | None = None  # None: the list has no line before it
    for line in _URL.sub(" ", _CODE.sub(" ", text)).splitlines():
        if not line.strip():
            continue
        item = _ITEM.match(line)
        if item is None:
            list_asks = _asks(line)
        sentences = _SENTENCE.findall(item["text"] if item else line)
        is_advice = item is not None and list_asks is False
        asking = [s.strip() for s in sentences if _asks(s, is_advice) and not _is_header(s, line)]
        if item and list_asks and not asking:
            asking = [item["text"].strip()]
        found += [sentence for sentence in asking if _has_letters(sentence)]
    return found


def split_question(question: str) -> list[str]:
    """Split a question, which may ask for several things, into parts; the whole comes first."""
    parts = [part for part in _PART.split(" ".join(question.split())) if _has_letters(part)]
    return [question, *parts] if len(parts) > 1 else [question]


def _asks(sentence: str, is_advice: bool = False) -> bool:
    return _OFFER.search(sentence) is None and (
        sentence.rstrip(" \"')*_").endswith(tuple(_MARKS))
        or _REQUEST.search(sentence) is not None
        or (not is_advice and _STARTS_REQUEST.search(sentence) is not None)
    )


def _is_header(sentence: str, line: str) -> bool:
    """Tell whether a sentence only announces the list that follows."""
    return sentence.rstrip().endswith(":") and line.rstrip().endswith(":")


def _has_letters(text: str) -> bool:
    return sum(map(str.isalpha, text)) >= _MIN_LETTERS
