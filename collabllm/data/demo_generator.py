"""Write the demo dataset from the task bank; the same seed gives the same rows.

uv run python -m collabllm.data.demo_generator demo.jsonl
"""

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collabllm.data.task_bank import (
    Entry,
    bank_fingerprint,
    end_sentence,
    is_test_kind,
    load_bank,
)

SCORES = {
    "best": 0.9, "generic": 0.5, "echo": 0.45, "reask": 0.3, "needless": 0.3, "guess": 0.3,
}  # fmt: skip
GENERIC_QUESTIONS = (
    "Could you please provide me with more details about your request?",
    "I'd be happy to help! Can you tell me more about what you need?",
    "Can you give me some more context so that I can assist you better?",
    "What else should I know?",
    "Sure! Is there anything specific that you have in mind?",
    "That depends on many things. What are your preferences?",
)
NEEDLESS = (
    "Before I start, could you tell me more about the background?",
    "Could you confirm all of that once more, please?",
    "Do you have any other preferences that I should take into account?",
    "Sure, I can do that. Which aspects matter most to you?",
)
ECHOES = ("Got it: {said}", "So: {said}", "You want the following. {said}", "{said}")
LEADS = (
    "Here you are.", "Here it is:", "Here we go.", "Here is my answer.", "Here's what I'd do.",
    "Here comes a version for that.", "Here goes:", "Here, with what you told me:",
    "Here, in short:", "Here, ready to use:", "Here are the essentials.", "Here, briefly:",
    "Here follows my version:",
)  # fmt: skip
_LED = 0.9  # share of results that a lead begins
_LISTED, _PLAIN = 0.7, 0.2  # share of asking replies that are the facts' own questions
_SHAPES = ("vague", "some", "full")  # a kind has a conversation of each of two of them
_ASKS_AT_ONCE = 0.75  # of the other vague conversations: share in which one reply asks for all
_ENDS_ASKING = 0.85  # share that ends with the question: complete openings show how to finish

Candidate = tuple[str, str]  # kind, text
Turn = tuple[str, list[Candidate]]  # the user's message, candidate replies


def demo_fingerprint() -> str:
    """Return a hash of what the rows are made of: the bank, and this module's code."""
    code = Path(__file__).read_bytes()
    return hashlib.sha256(bank_fingerprint().encode() + code).hexdigest()[:16]


def generate_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the rows of the dataset, one candidate reply each, three a turn; no test kind.

    Args:
        seed: Seed of the choice of openings, wordings and weak candidates.
    """
    conv_id = 0
    for entry in load_bank():
        if is_test_kind(entry["kind"]):
            continue
        random_ = random.Random(f"{seed}-{entry['kind']}")
        shapes = ["clear"] if "request" in entry else random_.sample(_SHAPES, 2)
        for shape in shapes:
            guesses = random.Random(f"{seed}-{conv_id}-guesses")
            yield from _Conversation(entry, shape, random_, guesses).rows(conv_id)
            conv_id += 1


class _Conversation:
    """One conversation of a kind: the user's manner, and three candidates per turn."""

    def __init__(
        self, entry: Entry, shape: str, random_: random.Random, guesses: random.Random
    ) -> None:
        self.entry, self.shape, self.random, self.guesses = entry, shape, random_, guesses
        self.terse = random_.random() < 0.25

    def rows(self, conv_id: int) -> Iterator[dict[str, Any]]:
        prompt: list[dict[str, str]] = []
        for user, candidates in self._turns():
            prompt = [*prompt, {"role": "user", "content": user}]
            for kind, text in self.random.sample(candidates, len(candidates)):
                yield {
                    "prompt": prompt,
                    "completion": text,
                    "conv_id": conv_id,
                    "turn_id": len(prompt),
                    "score": round(SCORES[kind] + self.random.uniform(-0.05, 0.05), 3),
                    "single_turn_prompt": self.entry.get("full") or self.entry["request"],
                    "single_turn_completion": self.entry["result"],
                    "single_turn_metadata": {
                        "kind": self.entry["kind"],
                        "area": self.entry["area"],
                        "opening": self.shape,
                        "reply_kind": kind,
                    },
                }
            best = next(text for kind, text in candidates if kind == "best")
            prompt = [*prompt, {"role": "assistant", "content": best}]

    def _turns(self) -> Iterator[Turn]:
        done: Candidate = ("best", _lead(self.entry["result"], self.random))
        if self.shape == "clear":
            weak: list[Candidate] = [("needless", self.entry["needless"]), self._needless()]
            yield self.entry["request"], [done, *weak]
            return
        if self.shape == "full":
            said = self.entry["full"]
            echo: Candidate = ("echo", self.random.choice(ECHOES).format(said=said))
            weak = [self._reask(list(self.entry["facts"])), self._needless(), echo]
            yield said, [done, *self.random.sample(weak, 2)]
            return
        message, asks, told = self._opening()
        for ask in asks:
            other = (
                self._reask(told) if told else ("generic", self.random.choice(GENERIC_QUESTIONS))
            )
            yield message, [("best", ask["text"]), other, self._guess()]
            message, told = self._answer(ask["for"]), [*told, *ask["for"]]
        if self.random.random() >= _ENDS_ASKING:
            yield message, [done, self._reask(told), self._guess()]

    def _opening(self) -> tuple[str, Sequence[Entry], list[str]]:
        """Return the first message, the good questions after it, and the facts that it tells."""
        if self.shape == "vague":
            return self.random.choice(self.entry["vague"]), self._asks(), []
        some = self.entry["some"]
        missing = [name for name in self.entry["facts"] if name not in some["tells"]]
        ask = {"for": missing, "text": self._plainly(missing) or some["ask"]}
        return some["text"], [ask], list(some["tells"])

    def _plainly(self, names: Sequence[str]) -> str:
        """Return the facts' own questions, as a list or in a row; at times "", for other words."""
        questions = [self.entry["facts"][name]["ask"] for name in names]
        draw = self.random.random()
        if draw < _LISTED and len(questions) > 1:
            return "\n".join(f"{i}. {question}" for i, question in enumerate(questions, start=1))
        return " ".join(questions) if draw < _LISTED + _PLAIN else ""

    def _asks(self) -> Sequence[Entry]:
        """Return the good questions, in one reply or in the several that the bank has."""
        names = list(self.entry["facts"])
        if plain := self._plainly(names):
            return [{"for": names, "text": plain}]
        asks = self.entry["asks"]
        if len(asks) == 1 or self.random.random() >= _ASKS_AT_ONCE:
            return list(asks)
        names = [name for ask in asks for name in ask["for"]]
        return [{"for": names, "text": " ".join(end_sentence(ask["text"]) for ask in asks)}]

    def _answer(self, names: Sequence[str]) -> str:
        facts = [self.entry["facts"][name] for name in names]
        if self.terse:
            return ", ".join(fact["value"] for fact in facts)
        return " ".join([*(end_sentence(f["say"]) for f in facts[:-1]), facts[-1]["say"]])

    def _guess(self) -> Candidate:
        """Do the task without what is missing, in the form of a good result."""
        return "guess", _lead(self.entry["wrong"], self.guesses)

    def _needless(self) -> Candidate:
        return "needless", self.random.choice(NEEDLESS)

    def _reask(self, told: Sequence[str]) -> Candidate:
        """Ask for something that the user has said already."""
        return "reask", self.entry["facts"][self.random.choice(list(told))]["ask"]


def _lead(result: str, random_: random.Random) -> str:
    """Begin a result, mostly; a lead makes plain at once that it is no question."""
    return f"{random_.choice(LEADS)} {result}" if random_.random() < _LED else result


def main(argv: list[str] | None = None) -> None:
    """Write the dataset to the path given."""
    (path,) = sys.argv[1:] if argv is None else argv
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in generate_rows())
    Path(path).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
