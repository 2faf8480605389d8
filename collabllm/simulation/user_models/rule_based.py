"""A simulated user without a language model: it knows facts, and tells one when asked for it."""

import random
import re
from collections.abc import Sequence

from collabllm.data.task_bank import end_sentence
from collabllm.event_loop import run_blocking
from collabllm.messages import Message
from collabllm.simulation.user_models.base import TERMINAL_SIGNAL, UserModel, UserTurnResult
from collabllm.tasks import Fact, Task
from collabllm.tasks.embeddings import has_bundled_encoder
from collabllm.tasks.matching import (
    contains_value,
    facts_asked_for,
    facts_told,
    find_questions,
    uses_encoder,
)
from collabllm.tasks.results import is_result, user_words

NO_PREFERENCE = (
    "I have no preference there.",
    "Doesn't matter to me.",
    "Up to you.",
    "No idea, choose something.",
)
NUDGES = (
    "Can you just do it with that?",
    "And now?",
    "Please go on.",
    "I'd like the result, please.",
)


AS_I_SAID = "As I said: "
_ASKS_GOAL = re.compile(
    r"\b(what (is|are|'s)|what's|what (would|do|can|should)|which) .{0,40}\b(task|next question|"
    r"your (question|request)|like to (do|accomplish|achieve|know|learn|discuss)|"
    r"want to (do|accomplish|know|learn)|need help with|help you with|do for you|on your mind)\b|"
    r"\bwhat do you (need|want)\W*$",
    re.IGNORECASE,
)


_GOAL_CUES = tuple(
    "article code exercise function goal help instruction need problem question request statement "
    "task title topic want".split()
)


class RuleBasedUser(UserModel):
    """Plays a user by rules; free, reproducible, and the same for every assistant.

    It opens vaguely, answers a question about a fact it knows, says again what it has said when
    asked for nothing but that, says that it has no preference when asked for anything else, and
    ends when a reply without a question is a result (`tasks.results`:
    more than its own words) and contains every required value (once all is told, where no fact has
    a value), or when patience runs out.

    Args:
        shards: The facts of the task.
        opening: The first message; the first fact's answer when empty.
        task_desc: What kind of task it is.
        single_turn_prompt: The hidden goal; the facts' answers by default.
        patience: Turns without progress (no fact told, not finished) until the user gives up.
        answers_several: Answer every question of a reply, or only the first.
        required: Values that the final reply must contain; those of all facts by default.
        seed: Seed of the wording.
        matcher: How questions are matched with facts, as in `facts_asked_for`.
        reference: A good result; what a reply adds must be like it. The goal where there is none.
        terminal_signal: As in `UserModel`.
    """

    name = "sharded"

    def __init__(
        self,
        shards: Sequence[Fact],
        opening: str = "",
        *,
        task_desc: str = "",
        single_turn_prompt: str = "",
        patience: int = 2,
        answers_several: bool = True,
        required: Sequence[str] | None = None,
        seed: int = 0,
        matcher: str = "auto",
        reference: str = "",
        terminal_signal: str = TERMINAL_SIGNAL,
    ) -> None:
        goal = single_turn_prompt or " ".join(fact.answer for fact in shards)
        super().__init__(task_desc, goal, terminal_signal)
        self.shards = tuple(shards)
        self.opening = opening or (shards[0].answer if shards else goal)
        self.patience = patience
        self.answers_several = answers_several
        self.required = tuple(
            required if required is not None else (f.value for f in shards if f.value)
        )
        self.seed = seed
        self.matcher = matcher
        self.reference = reference

    @classmethod
    def from_task(
        cls, task: Task, *, seed: int = 0, patience: int = 2, matcher: str = "auto"
    ) -> "RuleBasedUser":
        """Make the user of a task.

        Without facts the whole goal is one, told when asked for anything, unless the opening says
        it already.

        Args:
            task: What the user wants.
            seed: Seed of the wording.
            patience: As in the class.
            matcher: As in the class.
        """
        facts = task.facts
        if not facts and task.opening != task.single_turn_prompt:
            facts = (Fact("goal", task.single_turn_prompt, _GOAL_CUES),)
        return cls(
            facts,
            task.first_message,
            task_desc=task.task_desc,
            single_turn_prompt=task.single_turn_prompt,
            patience=patience,
            seed=seed,
            matcher=matcher,
            reference=task.single_turn_completion,
        )

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> UserTurnResult:
        """Write the next message; the same conversation and seed give the same message."""
        spoken = [message for message in messages if message["role"] != "system"]
        if not spoken or all(message["role"] != "user" for message in spoken):
            return UserTurnResult(self.opening)
        reply = next((m["content"] for m in reversed(spoken) if m["role"] == "assistant"), "")
        is_echo = reply.strip() == next(
            m["content"].strip() for m in reversed(spoken) if m["role"] == "user"
        )
        questions = [] if is_echo else find_questions(reply)
        # The encoder computes in a thread; all else is quicker than a thread's start.
        if questions:
            encodes = uses_encoder(self.shards, self.matcher)
        else:
            encodes = has_bundled_encoder() and self._has_values(reply)
        if encodes:
            return await run_blocking(self._answer, spoken, reply, questions, seed)
        return self._answer(spoken, reply, questions, seed)

    def _answer(
        self, spoken: Sequence[Message], reply: str, questions: Sequence[str], seed: int | None
    ) -> UserTurnResult:
        """Answer a reply, or end."""
        if not questions and self.is_finished(reply, spoken):
            return UserTurnResult("Thanks, that's it.", is_terminal=True)
        asked = questions if self.answers_several else questions[:1]
        known = self.facts_told(spoken) if questions else set()
        if told := self.facts_asked_for(asked, known):
            return UserTurnResult(_say(told))
        if questions and self._knows_only_the_goal() and not known:
            return UserTurnResult(_say(self.shards))
        if self._stalled_turns(spoken) >= self.patience:
            return UserTurnResult("I give up.", is_terminal=True, gave_up=True)
        if self._knows_only_the_goal() and any(map(_ASKS_GOAL.search, questions)):
            return UserTurnResult(f"{AS_I_SAID}{_say(self.shards)}")
        if any(map(_ASKS_GOAL.search, questions)):
            return UserTurnResult(f"{AS_I_SAID}{self.opening}")
        again = self.facts_asked_for(asked, {fact.name for fact in self.shards} - known)
        if again:
            return UserTurnResult(f"{AS_I_SAID}{_say(again)}")
        random_ = random.Random(f"{self.seed}-{seed}-{len(spoken)}-{self.opening}")
        return UserTurnResult(random_.choice(NO_PREFERENCE if questions else NUDGES))

    def facts_told(self, messages: Sequence[Message]) -> set[str]:
        """Return the names of the facts that the user has told in a conversation."""
        return facts_told(self.shards, messages, self.matcher)

    def is_finished(self, reply: str, messages: Sequence[Message] = ()) -> bool:
        """Tell whether a reply has every required value, and is more than what the user has said.

        Args:
            reply: A reply of the assistant.
            messages: The conversation before it.
        """
        if not self.required and not any(fact.value for fact in self.shards):
            told = self.facts_told(messages)  # no value says whether the reply is the wanted one
            if any(fact.name not in told for fact in self.shards):
                return False
        return self._has_values(reply) and is_result(
            reply,
            user_words(messages),
            facts=self.shards,
            reference=self.reference,
            goal=self.single_turn_prompt,
        )

    def _knows_only_the_goal(self) -> bool:
        return [fact.cues for fact in self.shards] == [_GOAL_CUES]

    def _has_values(self, reply: str) -> bool:
        return all(contains_value(reply, value) for value in self.required)

    def facts_asked_for(self, questions: Sequence[str], known: set[str]) -> list[Fact]:
        """Return the facts that questions ask for, each at most once; those in `known` never."""
        return facts_asked_for(self.shards, questions, known, self.matcher)

    def _stalled_turns(self, spoken: Sequence[Message]) -> int:
        """Count the user's latest messages in a row that told nothing new."""
        stalled = 0
        texts = [message["content"] for message in spoken if message["role"] == "user"][1:]
        for text in reversed(texts):
            if text not in (*NO_PREFERENCE, *NUDGES) and not text.startswith(AS_I_SAID):
                break
            stalled += 1
        return stalled


def _say(facts: Sequence[Fact]) -> str:
    return " ".join(end_sentence(fact.answer) for fact in facts)


ShardedUserModel = RuleBasedUser
"""The name of `RuleBasedUser` before; kept."""
