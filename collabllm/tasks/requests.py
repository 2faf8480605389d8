"""Find what a reply asks for: questions, requests without a question mark, items of a list."""

import math
import re
from collections.abc import Iterator

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_URL = re.compile(r"\b(?:https?://|www\.)\S+")
_LETTER_LINE = re.compile(
    r"^[ *_\[(]*(?:(?P<begins>subject:[ *_]*\S[^\n]*|dear\b[^.!?\n]{0,60},[ *_]*)|"
    r"(?:best|all the best|kind|warm\w*|with|regards|sincerely|respectfully|cordially|yours|cheers|"
    r"love|take care|see you|looking forward(?: to it)?|(?:many )?thanks|thank you)\b"
    r"(?:[^.!?:\n]{0,60}|(?: \w+)?[.!]+[ *_]*)|your (?:full )?name\b[^.?\n]{0,20}|[-*_]{3,}[ ]*)$",
    re.IGNORECASE | re.MULTILINE,
)
"""The first line of a letter, or its closing."""
_SHOWN = re.compile(r"^ {0,3}(?:#{1,6}[ \t][^\n]*[?\uff1f\u061f][ *_\"]*|>[^\n]*)$", re.MULTILINE)
"""A heading that is a question, or a line of a quote: they are read, not answered."""
_MARKS = "?\uff1f\u061f"  # also the full-width and the Arabic one
_ABBREVIATIONS = (
    r"etc U\.S U\.K a\.m p\.m Inc Ltd Co min max sq ft dept "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
)
_IN_SENTENCE = "|".join(
    (
        r"[.](?=\w|[)\]]?[,;:?])",
        *(
            rf"(?<=\b{word})[.]"
            for word in r"e\.g i\.e vs Dr Mr Mrs Ms St Prof approx incl".split()
        ),
        *(rf"(?<=\b{word})[.](?=\s[a-z\d(])" for word in _ABBREVIATIONS.split()),
        r"(?<=\b[Nn]o)[.](?=\s\d)",
    )
)
"""Full stops that end no sentence."""
_ENDS = f".!\u3002\uff01{_MARKS}"  # also the Chinese full stop and the full-width mark
_SENTENCE = re.compile(rf"[^{_ENDS}\n]+(?:(?:{_IN_SENTENCE})[^{_ENDS}\n]+)*[{_ENDS}]*")
_ITEM = re.compile(r"^\s*(?:[-*\u2022\u2013]|\(?\d{1,2}[.)])\s+(?P<text>.+)$")
_SOME_QUESTIONS = (
    r"(two|three|four|five|a few|some|a couple of) "
    r"((more|quick|short|other|clarifying) )?questions"
)
_TO_OTHERS = (
    r"[^.!?,;]{0,60} (by (the|tomorrow|tonight|\w+day|\d)|"
    r"(to|with) (your|the|his|her|their|all|any\w+|every\w+|others|friends|people|(?-i:[A-Z])))"
)
_REQUEST = re.compile(
    r"\b(tell me|let me know|(please|kindly|could you|can you) (also )?("
    r"provide|specify|describe|list|clarify|indicate|name|state|mention|tell|explain|"
    r"(share|give|confirm|send|say) ((with )?(me|us)|more|any|some|what|which|when|where|who|how|"
    r"if|whether|the following)|(share|give|confirm|(send|say) your)\b"
    rf"(?! (it|that|this(?! (info|detail))|your attendance)\b)(?!{_TO_OTHERS}))|"
    r"i('d| would| will|'ll)? (still )?(need|like|want|have) to know|i('ll| will)? need (you|more|"
    r"some (more )?(info|details|clarification)|a few|the following|your)|what i need|"
    rf"i('ve|'d|'ll| have| will| would)? [^.!?:]{{0,25}}\b{_SOME_QUESTIONS}|"
    rf"{_SOME_QUESTIONS} (first|for you|before i|so i)|"
    r"(i|we)\b[^.!?:]{0,30}\b(need|require|lack)\b[^.!?:]{0,20}\b(two|three|four|a few|some|"
    r"more|the following) (more )?(things|details|points|information)|i'm missing|still missing|"
    r"missing details?)\b|\bi('d|'ll| would| will)? (also |still |first )?(need|require):\s*$|"
    rf"\b{_SOME_QUESTIONS}(?! to ask)[^.!?:]{{0,60}} (me|(about|on|regarding) your)\b"
    r"[^.!?:]{0,60}:\W*$|"
    rf"(\b{_SOME_QUESTIONS}|^\W*questions):\W*$|"
    r"\bbefore i (start|begin|answer|can|do|write)\b[^.!?]{0,200}:\s*$",
    re.IGNORECASE,
)
_STARTS_REQUEST = re.compile(
    r"^\s*((just )?give me|(just )?send me|specify|(name|share|describe|state|list) "
    r"(a|an|me|your|the|any|all|which|what|how|where|when|who|if|whether))\b",
    re.IGNORECASE,
)
_ADAPT = r"(adjust|change|revise|expand|refine|modify|tweak)"
# Ask for nothing that a task lacks: manners, and offers of more.
_OFFER = re.compile(
    r"\b(let me know (if|should|how (it|this|that) go|what you think|"
    r"how (else )?(i|we) can|what else|"
    r"your (thoughts|opinion|feedback)( (on|about) (this|that|these|it)( \w+)?)?(?=\W*$)|"
    r"(when|whether|once) (this|that|it) (works|helps|looks|fits|sounds|suits|makes)|"
    r"(when|whether|once)\b(?=[^.!?]{0,60}\b(ready|done|finished|anything else|me to|any changes)\b"
    r"|[^.!?]{0,60}\b(ok|okay|fine|more|help|start|begin|stop|safely|continue|proceed)\W*$))|"
    r"feel free to|"
    r"(if|should) (you|there|anything)\b[^.!?]{0,80}\blet (me|us) know(?=\W*$)|"
    r"any (other |more |further )?questions(?=\W*$)|(?<!or )anything else(?=\W*$)|"
    r"(is there )?anything else (i can|i could|you|that you)|"
    r"does (this|that|it) (help|work|look|sound)"
    r"(?![^.!?]{0,60}(\d|\bor (?!(not|no|should|shall|would|do|is|are|need)\b)))|"
    r"how does (this|that|it) (look|sound)(?!,)|"
    r"what do you think(?=( (of|about) (this|that|these|the|it)( \w+)?)?\W*$)|"
    r"how are you(?=( doing| today)*\W*$)|"
    r"\u4f60\u597d\u5417|how (can|may|could) i (help|assist)|"
    rf"((would you like|do you want|want) me to|shall i|should i) {_ADAPT}|"
    rf"(would you like|do you want|want) to {_ADAPT}"
    r"(?= (it|this|that|these|the|anything|something|any)\b|\W*$)|"
    r"((would you like|do you want|want)( me)? to|shall i|should i) continue(?! \w+ing| by)|"
    r"(would you like|do you want|want) (to )?(anything else|any changes|any help|"
    r"help with anything))\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,;]\s+(?:and|but|also)\s+|;\s+", re.IGNORECASE)
_BEGINS_QUESTION = re.compile(
    r"^\W*(what|which|who|whose|when|where|why|how|is|are|do|does|did|can|could|will|would|should|"
    r"have|has)\b",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\s*[,;:()\u2013\u2014]\s+(?:and\s+|or\s+|plus\s+)?|\s+(?:and|plus|or)\s+", re.IGNORECASE
)
_PARTS_OF_ONE = 6  # that a sentence may have and be one question, as all good ones of the demo
_MIN_LETTERS = 3  # "Why?"
_EAST_ASIAN = "\u2e80"  # and above: a letter can be a word


def find_questions(text: str) -> list[str]:
    """Return the sentences and list items by which a text asks for something.

    A sentence asks when it ends with a question mark (also a full-width or Arabic one), or says so
    ("Tell me ...", "Please specify ..."). The items of a list ask when the line before the list
    does; where that does not, an item that begins as an order ("List your expenses.") is advice.
    Code, addresses, letters ("Dear Ann," to "Best regards,"; without a closing there is none),
    Markdown's headings ("## What is Linux?") and quotes ("> ...") are left out, and so are offers
    ("Let me know if ..."). Takes time linear in the text.
    """
    plain = _SHOWN.sub(lambda found: " " * len(found[0]), _blank_out(text))
    return [" ".join(plain[start:end].split()) for start, end in _find_spans(plain)]


def cut_questions(text: str) -> str:
    """Return a text without its questions, those in headings and quotes, too: none is work."""
    kept, last = [], 0
    for start, end in _find_spans(_blank_out(text)):
        kept.append(text[last:start])
        last = end
    return "\n".join([*kept, text[last:]])


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text; the dot of "e.g." ends none."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text)]


def _blank_out(text: str) -> str:
    """Put spaces where nothing can ask, and straight apostrophes: each place stays the same."""
    text = text.replace("\u2019", "'")
    for pattern in (_CODE, _URL):
        text = pattern.sub(lambda found: " " * len(found[0]), text)
    kept, last, begin = [], 0, None
    for line in _LETTER_LINE.finditer(text):
        if line["begins"]:
            begin = line.start() if begin is None else begin
        elif begin is not None:
            kept += [text[last:begin], " " * (line.end() - begin)]
            last, begin = line.end(), None
    return "".join([*kept, text[last:]])


def _find_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each question begins and ends."""
    list_asks: bool | None = None  # None: the list has no line before it
    end = 0
    for line in text.splitlines(keepends=True):
        begin, end = end, end + len(line)
        if not line.strip():
            continue
        item = _ITEM.match(line)
        if item is None:
            list_asks = _asks(line)
        is_advice = item is not None and list_asks is False
        first = item.start("text") if item else 0
        asking = [
            found.span()
            for found in _SENTENCE.finditer(line, first)
            if _asks(found[0], is_advice) and not _is_header(found[0], line)
        ]
        if item and list_asks and not asking:
            asking = [item.span("text")]
        for start, stop in asking:
            if _has_letters(line[start:stop]):
                yield begin + start, begin + stop


def split_question(question: str) -> list[str]:
    """Split a question, which may ask for several things, into parts; the whole comes first."""
    parts = [part for part in _PART.split(" ".join(question.split())) if _has_letters(part)]
    return [question, *parts] if len(parts) > 1 else [question]


def count_questions(question: str) -> int:
    """Count a sentence as one question for each six parts, so that it cannot ask for all at once.

    "Is it for a kitchen, a bath, or a hall?" is one.
    """
    num_parts = max(len(split_question(question)) - 1, 1)
    return math.ceil(num_parts / _PARTS_OF_ONE)


def _asks(sentence: str, is_advice: bool = False) -> bool:
    clauses = _CLAUSE.split(sentence)
    wanting = [clause for clause in clauses if not _OFFER.search(clause)]
    if not wanting:
        return False
    if len(wanting) == len(clauses):
        has_begun = not is_advice and _STARTS_REQUEST.search(sentence) is not None
        return has_begun or has_question_mark(sentence) or _REQUEST.search(sentence) is not None
    return any(
        _REQUEST.search(clause) or (has_question_mark(sentence) and _BEGINS_QUESTION.match(clause))
        for clause in wanting
    )


def has_question_mark(sentence: str) -> bool:
    """Tell whether a sentence ends in a question mark, whatever quotes or brackets follow."""
    return sentence.rstrip(" \r\n\"')*_.!\u3002\uff01").endswith(tuple(_MARKS))


def _is_header(sentence: str, line: str) -> bool:
    """Tell whether a sentence only announces the list that follows."""
    return sentence.rstrip(" *_").endswith(":") and line.rstrip(" \r\n*_").endswith(":")


def _has_letters(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return len(letters) >= _MIN_LETTERS or any(letter >= _EAST_ASIAN for letter in letters)
