"""Write the demo dataset from the demo material; the same seed gives the same bytes.

uv run python -m collabllm.data.demo_generator collabllm/data/demo_multiturn.jsonl
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

# Shapes that the conversations take in turn: turns until the task is done, what the opening holds,
# and whether the user asks for a shorter version in the end.
SHAPES = (
    "two",
    "complete",
    "three",
    "partial",
    "two",
    "complete",
    "tweak",
    "two",
    "four",
    "complete",
    "two",
)
_CONVERSATIONS_PER_DOMAIN = 4
LEADS = ("Sure.", "Gladly.", "Happy to help.", "Of course.", "Yes.", "", "", "Let me ask first.")
LATER_LEADS = ("Thanks.", "Got it.", "Good.", "", "Noted.")
FINISHES = ("", "", "Here it is:", "Done:", "Here you go:", "With that:")
TWEAKS = (
    "Shorter, please.",
    "can you cut it down?",
    "Too long for me, one line?",
    "A bit briefer?",
)
EXCUSES = ("", "", "Ah, sorry:", "Right, forgot that.", "oh ok.")
GENERIC_QUESTIONS = (
    "Could you please provide me with more details about your request?",
    "I'd be happy to help! Can you tell me more about what you need?",
    "Can you give me some more context so that I can assist you better?",
    "What else should I know?",
)
NEEDLESS = (
    "Before I start, could you tell me more about the background?",
    "Could you confirm all of that once more, please?",
    "Do you have any other preferences that I should take into account?",
)
SCORES = {
    "best": 0.9,
    "generic": 0.5,
    "reask": 0.42,
    "needless": 0.4,
    "guess": 0.3,
    "lecture": 0.12,
}

Domain = dict[str, Any]
Values = dict[str, str]
Candidate = tuple[str, str]  # kind, text


def load_material() -> dict[str, Domain]:
    """Read the domains, by name."""
    text = files("collabllm.data").joinpath("demo_material.yaml").read_text(encoding="utf-8")
    material: dict[str, Domain] = yaml.safe_load(text)
    return material


def end_sentence(text: str) -> str:
    """Add a full stop where people left it out, so that another sentence can follow."""
    return text if text[-1] in ".?!" else f"{text}."


def generate_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the rows of the dataset, one candidate reply each, three a turn."""
    conv_id = 0
    for name, domain in load_material().items():
        random_ = random.Random(f"{seed}-{name}")
        for _ in range(_CONVERSATIONS_PER_DOMAIN):
            shape = SHAPES[conv_id % len(SHAPES)]
            yield from _ConversationWriter(name, domain, shape, random_).rows(conv_id)
            conv_id += 1


class _ConversationWriter:
    """One conversation: its hidden values, the user's manner, and three candidates a turn."""

    def __init__(self, name: str, domain: Domain, shape: str, random_: random.Random) -> None:
        self.name, self.domain, self.shape, self.random = name, domain, shape, random_
        self.facts: dict[str, Domain] = domain["facts"]
        self.values = {fact: random_.choice(spec["values"]) for fact, spec in self.facts.items()}
        self.guesses = {
            fact: random_.choice([v for v in spec["values"] if v != self.values[fact]])
            for fact, spec in self.facts.items()
        }
        self.terse = random_.random() < 0.4
        self.opening = end_sentence(random_.choice(domain["openings"]))
        self.finished = domain["short"]
        if shape in ("tweak", "four"):
            self.finished = random_.choice(domain["done"])

    def rows(self, conv_id: int) -> Iterator[dict[str, Any]]:
        prompt: list[dict[str, str]] = []
        for user, candidates in self.turns():
            prompt = [*prompt, {"role": "user", "content": user}]
            candidates = self.random.sample(candidates, len(candidates))
            for kind, text in candidates:
                score = round(SCORES[kind] + self.random.uniform(-0.05, 0.05), 3)
                yield {
                    "prompt": prompt,
                    "completion": text,
                    "conv_id": conv_id,
                    "turn_id": len(prompt),
                    "score": score,
                    "single_turn_prompt": self.goal(),
                    "single_turn_completion": self.finish(self.finished),
                    "single_turn_metadata": {"domain": self.name, "reply_kind": kind},
                }
            best = next(text for kind, text in candidates if kind == "best")
            prompt = [*prompt, {"role": "assistant", "content": best}]

    def goal(self) -> str:
        return " ".join([self.opening, *(self.say(fact) for fact in self.facts)])

    def turns(self) -> Iterator[tuple[str, list[Candidate]]]:
        names = self.random.sample(list(self.facts), len(self.facts))
        if self.shape == "complete":
            opening = " ".join([self.opening, *(self.say(fact) for fact in self.facts)])
            yield opening, [("best", self.done()), self.weak_needless(), self.weak("lecture")]
            return
        known = names[:1] if self.shape == "partial" else []
        missing = [fact for fact in names if fact not in known]
        opening = " ".join([self.opening, *(self.say(fact) for fact in known)])
        weak = self.random.sample(["generic", "guess", "lecture"], 2)
        best: Candidate = ("best", self.ask(missing, LEADS))
        other = self.reask(known) if known else self.weak(weak[1])
        yield opening, [best, other, self.weak(weak[0])]
        if self.shape in ("three", "four"):
            yield (
                self.answer(missing[:-1]),
                [
                    ("best", self.ask(missing[-1:], LATER_LEADS)),
                    self.reask(missing[:-1]),
                    self.weak("guess"),
                ],
            )
            missing = missing[-1:]
        yield self.answer(missing), [("best", self.done()), self.reask(missing), self.weak("guess")]
        if self.shape in ("tweak", "four"):
            short = ("best", self.finish(self.domain["short"]))
            long_ = ("reask", self.finish(self.domain["done"][0]))
            yield self.random.choice(TWEAKS), [short, long_, self.weak("lecture")]

    def say(self, fact: str) -> str:
        return str(self.random_stable(self.facts[fact]["say"], fact).format(v=self.values[fact]))

    def random_stable(self, options: Sequence[str], fact: str) -> str:
        """Choose by the conversation's values, so that a goal and its messages agree."""
        return random.Random(f"{self.values[fact]}{self.opening}").choice(options)

    def ask(self, facts: Sequence[str], leads: Sequence[str]) -> str:
        questions = [self.random.choice(self.facts[fact]["ask"]) for fact in facts]
        if len(questions) > 1:
            last = questions[-1]
            questions[-1] = f"And {last[0].lower()}{last[1:]}"
        return " ".join(filter(None, [self.random.choice(leads), *questions]))

    def answer(self, facts: Sequence[str]) -> str:
        if self.terse:
            text = ", ".join(self.values[fact] for fact in facts)
            return text if self.random.random() < 0.5 else f"{text}."
        said = [self.say(fact) for fact in facts]
        return " ".join(filter(None, [self.random.choice(EXCUSES), *said]))

    def done(self) -> str:
        return " ".join(filter(None, [self.random.choice(FINISHES), self.finish(self.finished)]))

    def finish(self, text: str) -> str:
        written: str = text.format(**self.values)
        return written[0].upper() + written[1:]

    def weak(self, kind: str) -> Candidate:
        if kind == "generic":
            return kind, self.random.choice(GENERIC_QUESTIONS)
        if kind == "lecture":
            return kind, self.domain["lecture"]
        guess: str = self.random.choice(self.domain["done"]).format(**self.guesses)
        return "guess", guess[0].upper() + guess[1:]

    def weak_needless(self) -> Candidate:
        return "needless", self.random.choice(NEEDLESS)

    def reask(self, facts: Sequence[str]) -> Candidate:
        """Ask for something that the user has just said."""
        return "reask", self.ask([self.random.choice(list(facts))], LEADS)


def main(argv: list[str] | None = None) -> None:
    """Write the dataset to the path given."""
    (path,) = sys.argv[1:] if argv is None else argv
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in generate_rows())
    Path(path).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
