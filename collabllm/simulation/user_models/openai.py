"""A user played by any chat model, which is told to be one and answers in JSON."""

import hashlib
import json
from collections.abc import Sequence
from string import Template
from typing import Any

from collabllm.messages import Message, to_chat
from collabllm.prompts import load_prompt
from collabllm.simulation.user_models.base import (
    GIVE_UP_SIGNAL,
    TOLD_WRONGLY,
    UserTurnResult,
)
from collabllm.simulation.user_models.output_formats import FIELDS, parse_user_output
from collabllm.simulation.user_models.personas import Persona
from collabllm.simulation.user_models.server import MAX_PARSE_RETRIES, ServerUserModel

__all__ = ["MAX_PARSE_RETRIES", "OpenAIUserModel"]

_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "user_turn",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                field: {"type": "boolean" if field == "slipped" else "string"} for field in FIELDS
            },
            "required": list(FIELDS),
            "additionalProperties": False,
        },
    },
}


class OpenAIUserModel(ServerUserModel):
    """A user played by a chat model behind an OpenAI-compatible server.

    It has two ways to end: with what it wanted (`terminal_signal`), and without it
    (`GIVE_UP_SIGNAL`). What it says wrongly on purpose, as people do, it marks; see `slips` in
    `UserTurnResult`.

    Args:
        args: As in `ServerUserModel`.
        persona: Traits added to the prompt.
        kwargs: As in `ServerUserModel`.
    """

    reminder = (
        "That was not readable. Answer again, with one JSON object that has the text fields "
        "thought, current_answer, slip and response, and slipped, which is true or false; nothing "
        "around it."
    )

    def __init__(self, *args: Any, persona: Persona | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.persona = persona or Persona()
        self._template = load_prompt("user_simulator")
        self.prompt_hash = hashlib.sha256(self._template.encode()).hexdigest()[:16]

    def build_prompt(self, messages: Sequence[Message]) -> str:
        """Fill the prompt; texts with braces, quotes, dollar signs or marks pass unchanged."""
        spoken = [message for message in to_chat(messages) if message["role"] != "system"]
        return Template(self._template).substitute(
            goal=self.single_turn_prompt,
            task_desc=self.task_desc or "not said",
            terminal_signal=self.terminal_signal,
            give_up_signal=GIVE_UP_SIGNAL,
            persona=self.persona.to_prompt(),
            conversation=json.dumps(spoken, ensure_ascii=False, indent=1)
            if spoken
            else "nothing yet: you write the first message",
        )

    def build_request(self, messages: Sequence[Message]) -> list[Message]:
        """Return the prompt as one message."""
        return [{"role": "user", "content": self.build_prompt(messages)}]

    def request_settings(self) -> dict[str, Any]:
        """Ask for the JSON form, where the server can."""
        return {"response_format": _SCHEMA}

    def read(self, answer: str) -> UserTurnResult | None:
        """Read the JSON object; None where there is no `response`."""
        turn = parse_user_output(answer)
        if turn is None:
            return None
        response = turn["response"]
        gave_up = GIVE_UP_SIGNAL in response
        is_terminal = gave_up or self.terminal_signal in response
        for signal in (GIVE_UP_SIGNAL, self.terminal_signal):
            response = response.replace(signal, "")
        return UserTurnResult(
            response=response.strip(),
            thought=turn["thought"],
            current_answer=turn["current_answer"],
            is_terminal=is_terminal,
            raw_output=answer,
            gave_up=gave_up,
            slips=(TOLD_WRONGLY,) if turn["slipped"].lower() == "true" else (),
        )
