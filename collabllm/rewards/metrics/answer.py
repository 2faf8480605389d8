"""The metric of answers: is the one that a conversation came to right."""

import re
from collections.abc import Sequence

from collabllm.event_loop import run_blocking
from collabllm.messages import Message
from collabllm.rewards.extraction import find_answer, find_boxed
from collabllm.rewards.metrics.answer_words import WORD, normalize, to_plain
from collabllm.rewards.metrics.math_process import math_processes
from collabllm.rewards.registry import (
    MetricMissingError,
    MetricTools,
    NotApplicableError,
    metric,
)
from collabllm.tasks import Task
from collabllm.tasks.words import content_words, is_unspaced, space_out

_ENDS = ".!?\u3002\uff01\uff1f"  # also the Chinese ones
_SENTENCE = re.compile(rf"(?:[^{_ENDS}\n]|(?<=\d)\.(?=\d))+[{_ENDS}]*")
# "Is not" and "or" of Chinese and Japanese, with spaces between letters as `space_out` puts them.
_NOT, _OR = (
    "|".join(r"\s+".join(word) for word in words.split())
    for words in (
        "\u4e0d\u662f \u4e0d\u4f1a \u5e76\u975e \u3067\u306f\u306a \u3067\u306f\u3042\u308a",
        "\u6216 \u8fd8\u662f \u307e\u305f\u306f",
    )
)
_IS = ":\uff1a\u662f\u4e3a"  # a colon, also the Chinese one, and "is"
_NEGATION = re.compile(
    r"\b(?:not|no|never|neither|nor|without|cannot|isn't|wasn't|aren't|can't|doesn't|don't|won't|"
    r"wouldn't|instead of|rather than|rule[sd]? out|wrong)\b|n't\b|" + _NOT,
    re.IGNORECASE,
)
_GUESS = re.compile(
    r"^\W*(?:or )?(?:is|was|are|could|might|may|would) (?:it|this|that|they)\b|"
    r"\b(?:maybe|perhaps|possibly)\b|\b(?:could|might|may) be\b",
    re.IGNORECASE,
)
_ANSWER = "ANSWER"  # stands for the expected words in a sentence
_LIST = re.compile(
    r"(?:^|[,;.!?])[^\w,;.!?]*\w[^,;.!?]*[,;]\s*\w[^,;.!?]*[,;]|\bor\b|\beither\b|"
    rf"{_ANSWER}\s*[/|]|[/|]\s*{_ANSWER}|" + _OR,
    re.IGNORECASE,
)
_OPTION = re.compile(r"\W*([A-Z])\s*[:.)\]]\W*")
_OPTIONS = re.compile(  # "A: B", which is both or neither; no "J. R. R. Tolkien"
    r"\W*[A-Z](?:\W+(?:(?:and|or)\W+)?[A-Z]\b)+\W*(?:$|,|\b(?:because|since)\b)"
)
_REASON = re.compile(r"\b(?:because|since)\b|,(?!.{0,200}\b(?:and|or)\b)", re.IGNORECASE)
_YES_OR_NO = re.compile(
    r"\W*(?:(yes)\b(?!\W+i(?: am|'m)\b)|"
    r"(no)\b(?!\s+(?!(?:i|you|he|she|it|we|they|there|this|that)\b)\w))",  # not "No dogs"
    re.IGNORECASE,
)
_LETTER_A = re.compile(r"(?<=\w\s)A\b|\bA\b(?!\s+\w)")  # not the article of "A dog barks."

_HAS_MATHS = re.compile(r"\d|[\\^=+*/]\s*\w")
_NUMBER = re.compile(r"[-+$]*[\d.,/]+\\?%?")
_FORMULA = re.compile(r"(?:[\s\d.,()\[\]{}^*/+=<>%\u2212\u00d7\u00f7-]|\\[a-zA-Z]+)+")
_HAS_OPERATOR = re.compile(r"[\\^*/+=\u2212\u00d7\u00f7-]")
_BEGIN = re.compile(r"\D*(?=\d)|[^,]*")  # of an answer: up to its number, or else its comma
_HAS_MARKS = re.compile(r"\$|\\[(\[]")
_LAST_LINE = re.compile(r"(?:^|\n)####[ \t]*([-+$]?[\d.,/]+%?)\s*$")  # of a solution in GSM8K
_DATE_OR_TIME = re.compile(
    r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}|\d{1,2}:\d\d(?::\d\d)?(?:\s*[ap]\.?m\.?)?", re.IGNORECASE
)
_LIST_DASH = re.compile(r"(?<=\n)([ \t]*)-(?=\d)")


@metric("accuracy", needs={"reference"})
async def accuracy(conversation: Sequence[Message], task: Task, tools: MetricTools) -> float:
    r"""Compare the conversation's last answer with the reference: 1 when they agree, else 0.

    The last answer is that of the last reply with a marked one ("the answer is ...", `\boxed{}`);
    where none is marked, it is looked for in the last reply that has one of its kind.

    A mathematical reference (numbers, formulas, `\boxed{}`, the last line "#### 18" of GSM8K's
    solutions) is compared by math-verify. Any other one, also a date or a time, is compared as
    text, without case, punctuation and articles: a marked answer must equal it;
    else a sentence must state it as whole words, not negated and not as one of several guesses. A
    marked answer may have an option's letter before it ("B: ") and a reason after it. Yes and no
    count at the beginning of the marked answer, or else of a sentence.
    """
    reference = task.single_turn_completion.strip()
    if not reference:
        raise NotApplicableError("the task has no reference (single_turn_completion)")
    if last_line := _LAST_LINE.search(reference):
        reference = last_line[1]
    replies = [m["content"] for m in conversation if m["role"] == "assistant"]
    if not replies:
        raise MetricMissingError("the assistant said nothing")
    marked = next((reply for reply in reversed(replies) if find_answer(reply)), None)
    if is_mathematical(reference):
        reply = marked or next((r for r in reversed(replies) if re.search(r"\d", r)), replies[-1])
        return float(await _equals(find_boxed(reference) or reference, reply))
    expected = normalize(to_plain(reference))
    if expected in ("yes", "no"):
        said = map(_yes_or_no, [marked or "", *reversed(replies)])
        return float(next(filter(None, said), "") == expected)
    if marked is not None:
        answer = find_answer(to_plain(marked)) or ""
        if _OPTIONS.match(answer):
            options = WORD.findall(to_plain(reference).casefold())
            return float(WORD.findall(answer.casefold()) == options)
        return float(expected in _readings(answer))
    return float(_is_told(replies, expected))


async def _equals(expected: str, reply: str) -> bool:
    """Compare mathematics with a reply's marked answer alone, or else with the reply."""
    answer = find_answer(reply) or ""
    begin = _BEGIN.match(answer)
    clause = re.split("[,;:]", begin[0])[-1] if begin else ""
    if _NEGATION.search(clause):  # "surely not 12"; "12, not 13" and "no doubt, 12" are 12
        return False
    for text in _texts_to_compare(expected, answer, reply):
        if await _verify(expected, text):
            return True
    return False


def _texts_to_compare(expected: str, answer: str, reply: str) -> list[str]:
    """Return how math-verify may read an answer: in a sentence, as a formula, or in either way.

    In a sentence it finds no formula, pair or list without marks of its own, and of a formula one
    number. An answer for a number, or one with marks, is read in one way: "12 $=17$" is not both.
    """
    formula = rf"\boxed{{{answer}}}"
    if find_boxed(reply) is not None:
        return [formula]
    if not _HAS_MATHS.search(answer):  # "The answer is as follows:" has nothing to compare
        return [space_out(reply), formula]
    sentence = f"The answer is {answer}"
    if len(re.findall(r"\d[\d.,]*", answer)) == 1:  # "\\$12.", "(12)": it cannot be two answers
        return [sentence, formula]
    if _HAS_MARKS.search(answer):
        return [sentence]
    if not _NUMBER.fullmatch(expected):
        return [sentence, formula]
    is_formula = _FORMULA.fullmatch(answer) and _HAS_OPERATOR.search(answer)
    return [formula if is_formula else sentence]


async def _verify(expected: str, answer: str) -> bool:
    """Compare mathematics; an answer that cannot be compared is wrong, unless nothing can be."""
    verify = math_processes().verify
    try:
        return await run_blocking(verify, expected, answer)
    except MetricMissingError:  # else an answer that takes for ever would be worth more than a 0
        await run_blocking(verify, expected, f"\\boxed{{{expected}}}")
        return False


def _yes_or_no(reply: str) -> str:
    """Return the yes or no that a reply's marked answer, or else a sentence, begins with."""
    texts = [find_answer(reply) or "", *_SENTENCE.findall(reply)]
    found = filter(None, map(_YES_OR_NO.match, texts))
    return next(((match[1] or match[2]).casefold() for match in found), "")


def _readings(answer: str) -> set[str]:
    """Return a marked answer, its option letter alone, what is without it, and without reasons.

    A time is also one without its a.m. or p.m.
    """
    option = _OPTION.match(answer)
    texts = [answer, option[1], answer[option.end() :]] if option else [answer]
    parts = [part for text in texts for part in (text, _REASON.split(text, maxsplit=1)[0])]
    found = {normalize(part) for part in parts}
    return found | {re.sub(r"(?<=\d) [ap]m$", "", words) for words in found}


def _is_told(replies: Sequence[str], expected: str) -> bool:
    """Tell whether the last reply that mentions the expected words states them."""
    if "-" not in expected:  # else a dash before a number is its minus, wherever it stands
        replies = [_LIST_DASH.sub(r"\1- ", reply) for reply in replies]
    plain = [to_plain(reply) for reply in replies]
    told = (_states(plain[idx:], expected) for idx in reversed(range(len(plain))))
    return next((found for found in told if found is not None), False)


def _states(replies: Sequence[str], expected: str) -> bool | None:
    """Tell whether the first reply states the expected words; None where it does not mention them.

    A mention in a negated sentence, or as one of several guesses, is none that counts; nor is one
    that the same words with another answer follow, there or in a later reply.
    """
    sentences, *later = [_SENTENCE.findall(reply) for reply in replies]
    found = [idx for idx, s in enumerate(sentences) if _mentions(s, expected)]
    if not found:
        return None
    if sum(_GUESS.search(sentence) is not None for sentence in sentences) > 1:
        return False
    for idx in found:
        text = _without_reference(sentences[idx], expected)
        if _NEGATION.search(text) or _LIST.search(text) or _is_beside_another(text, expected):
            continue
        frame = _words(text)
        is_bare = len(frame) == 1
        after = sentences[idx + 1 :] + ([] if is_bare else [s for reply in later for s in reply])
        if not any(_fills(frame, _words(s), expected) for s in after):
            return True
    return False


def _mentions(sentence: str, expected: str) -> bool:
    if expected == "a":
        return _LETTER_A.search(sentence) is not None
    said = f" {normalize(sentence)} "
    if len(expected) == 1 and is_unspaced(expected):
        after = rf"[{_IS}]\W*{expected}(?!\s*\w)"
        return said.startswith(f" {expected} ") or re.search(after, sentence) is not None
    return f" {expected} " in said


def _fills(frame: list[str], words: list[str], expected: str) -> bool:
    """Tell whether a sentence is another one with as many other words in place of the answer."""
    if _ANSWER not in frame:
        return False
    start = frame.index(_ANSWER)
    end = len(words) - (len(frame) - start - 1)
    other = words[start:end]
    return (
        [*words[:start], _ANSWER, *words[end:]] == frame
        and len(other) == len(expected.split())
        and other != expected.split()
        and (len(expected) == 1 or is_unspaced(expected) or bool(content_words(" ".join(other))))
    )


def _words(text: str) -> list[str]:
    found = (word if word == _ANSWER else word.casefold() for word in WORD.findall(text))
    return ["a" if word == "an" else word for word in found]


def _without_reference(sentence: str, expected: str) -> str:
    """Return a sentence whose expected words are one word, so that they neither negate nor list."""
    words = r"\W+(?:(?:a|an|the)\W+)*".join(map(re.escape, expected.split()))
    return re.sub(rf"(?<!\w){words}(?!\w)", _ANSWER, sentence, flags=re.IGNORECASE)


def _is_beside_another(text: str, expected: str) -> bool:
    """Tell whether the answer stands beside one that differs from it in its numbers alone."""
    other = re.sub(r"(?:\\-)?\d+", r"-?\\d+", re.escape(expected))
    beside = rf"(?<!\w){other}[\s,;/|-]+{_ANSWER}|{_ANSWER}[\s,;/|-]+{other}(?!\w)"
    return re.search(beside, text, re.IGNORECASE) is not None


def is_mathematical(reference: str) -> bool:
    r"""Tell whether a reference is a number or a formula: `\boxed{}`, or no word of 3 letters."""
    if "\\boxed{" in reference:
        return True
    if _DATE_OR_TIME.fullmatch(reference):  # the former is no difference, the latter no ratio
        return False
    without_commands = re.sub(r"\\[a-zA-Z]+|\b(?:sin|cos|tan|log|sqrt|pi)\b", " ", reference)
    has_signs = re.search(r"[\d\\^=+*/]", reference) is not None
    return has_signs and re.search(r"[A-Za-z]{3,}", without_commands) is None
