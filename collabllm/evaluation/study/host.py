"""Runs a study: one step of one person at a time, written down before anybody sees it."""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from collabllm.errors import ContextFullError
from collabllm.evaluation.desk import ArmDesk
from collabllm.evaluation.study.design import Design
from collabllm.evaluation.study.person import Person, Rules, rebuild
from collabllm.evaluation.study.store import Study, open_answers, open_study, read_answers
from collabllm.messages import Message, to_valid_text, with_system_prompt
from collabllm.simulation.simulator import derive_seed
from collabllm.web import UserError

logger = logging.getLogger(__name__)

NO_ANSWER = "The assistant did not answer. Your answers are kept; try again in a moment."


class Host:
    """The state of a running study; everything in it comes back from its folder after a kill.

    Args:
        folder: Folder of the study.
        study: What it is.
        desk: Answers.
        prompts: System prompts by arm.
    """

    def __init__(
        self, folder: Path, study: Study, desk: ArmDesk, prompts: Mapping[str, str]
    ) -> None:
        self.study, self.desk, self.prompts = study, desk, prompts
        self.codes = open_study(folder, study)
        self._writer = open_answers(folder)
        self._tasks = {task.task_id: task.text for task in study.tasks}
        self._design = Design(study.arms, list(self._tasks), study.tasks_each, study.seed)
        rules = Rules(study.min_turns, study.rate_every)
        answers = read_answers(folder)
        self._people = {n: rebuild(n, rules, answers.get(n, [])) for n in self.codes.values()}
        begun = [p for p in self._people.values() if p.assignment]
        for person in sorted(begun, key=lambda p: p.events[0]["at"]):
            self._design.take(person.assignment)
        self._locks = {number: asyncio.Lock() for number in self._people}
        self._replies: dict[int, asyncio.Task[None]] = {}

    def person(self, code: str) -> Person:
        """Return whose link it is.

        Raises:
            UserError: If it is nobody's.
        """
        number = self.codes.get(code)
        if number is None:
            raise UserError("This link is not valid; check that it is whole.", 404)
        return self._people[number]

    async def act(self, code: str, step: int, action: Mapping[str, Any]) -> Person:
        """Do what a page asks, if the page shows the present state.

        Args:
            code: Code of the link.
            step: That the page shows; another one means a second tab, or a second click.
            action: `kind`, and what belongs to it.

        Raises:
            UserError: If it does not fit; nothing is changed then.
        """
        person = self.person(code)
        async with self._locks[person.number]:
            if step != person.step:
                raise UserError("This page is behind; it shows the present state now.", 409)
            event = person.check(action)
            if event["kind"] == "consent" and event["agree"]:
                dealt = self._design.deal()
                event["assignment"] = [vars(assignment) for assignment in dealt]
            self._write(person, event)
        return person

    async def wait_for_reply(self, code: str) -> Person:
        """Wait for the reply that is due; all tabs of a person wait for the same one.

        Where the context has no room for it, the conversation is over, and may be graded.

        Raises:
            UserError: If the model fails.
        """
        person = self.person(code)
        if not person.waits:
            return person
        task = self._replies.get(person.number)
        if task is None:
            task = asyncio.create_task(self._reply(person))
            self._replies[person.number] = task
            task.add_done_callback(lambda _: self._replies.pop(person.number, None))
        try:
            await asyncio.shield(task)
        except Exception as error:  # of a model or its server: the person may try again
            logger.warning("The arm of person %d failed: %s", person.number, error)
            raise UserError(NO_ANSWER, 502) from None
        return person

    async def _reply(self, person: Person) -> None:
        started = time.perf_counter()
        arm = person.current.arm
        tries = sum(event["kind"] == "failure" for event in person.events)
        seed = derive_seed(self.study.seed, person.number, person.step - tries, tries)
        prompt: list[Message] = with_system_prompt(person.talk, self.prompts[arm])
        try:
            reply = await self.desk.reply(arm, prompt, seed)
        except ContextFullError as error:
            self._write(person, {"kind": "full", "error": str(error)})
            return
        except Exception as error:
            self._write(person, {"kind": "failure", "error": f"{type(error).__name__}: {error}"})
            raise
        seconds = time.perf_counter() - started
        await asyncio.sleep(max(0.0, self.study.pad_s - seconds))
        self._write(
            person,
            {
                "kind": "reply",
                "text": to_valid_text(reply.text),
                "tokens": reply.completion_tokens,
                "finish_reason": reply.finish_reason,
                "seconds": round(seconds, 3),
                "waited_s": round(time.perf_counter() - started, 3),
            },
        )

    def _write(self, person: Person, event: dict[str, Any]) -> None:
        """Write an event down, then take note of it."""
        whole = {"person": person.number, "at": time.time(), **person.mark(), **event}
        self._writer.write(whole)
        person.apply(whole)

    def show(self, person: Person) -> dict[str, Any]:
        """Return what the person's page shows; nothing in it depends on the arm but the replies."""
        shown: dict[str, Any] = {
            "step": person.step,
            "phase": person.phase,
            "num_tasks": len(person.assignment) or self.study.tasks_each,
            "task_number": len(person.talks),
            "waits": person.waits,
            "may_write": person.may_write,
            "may_finish": person.may_finish,
            "num_turns": person.num_turns,
        }
        if person.phase in ("chat", "rate_turn", "rate_task"):
            shown["task"] = self._tasks[person.current.task_id]
            shown["messages"] = person.talk
        if person.phase == "preference":
            shown["talks"] = person.talks
        return shown

    def close(self) -> None:
        """Close the file of answers."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
