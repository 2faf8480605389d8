"""A user played by a language model behind an OpenAI-compatible server."""

import hashlib
import json
import logging
from collections.abc import Sequence
from string import Template
from typing import Any

from collabllm.errors import UnparseableError
from collabllm.messages import Message, to_chat
from collabllm.prompts import load_prompt
from collabllm.servers.client import OpenAIClient, shared_client
from collabllm.simulation.user_models.base import TERMINAL_SIGNAL, UserModel, UserTurnResult
from collabllm.simulation.user_models.output_formats import parse_user_output
from collabllm.simulation.user_models.personas import Persona

logger = logging.getLogger(__name__)

MAX_PARSE_RETRIES = 3

_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "user_turn",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "thought": {"type": "string"},
                "current_answer": {"type": "string"},
                "response": {"type": "string"},
            },
            "required": ["thought", "current_answer", "response"],
            "additionalProperties": False,
        },
    },
}
_REMINDER = (
    "That was not readable. Answer again, with one JSON object that has the text fields thought, "
    "current_answer and response, and nothing around it."
)


class OpenAIUserModel(UserModel):
    """A user played by a model behind an OpenAI-compatible server.

    Args:
        task_desc: What kind of task it is.
        single_turn_prompt: The hidden goal.
        model: The server's name of the model.
        base_url: Of the server; OpenAI's by default.
        api_key: OPENAI_API_KEY by default.
        temperature: Of sampling.
        max_tokens: Most tokens of the JSON object.
        terminal_signal: As in `UserModel`.
        persona: Traits added to the prompt.
        client: A client to share; by default one a server.
    """

    def __init__(
        self,
        task_desc: str,
        single_turn_prompt: str,
        model: str = "gpt-4o-mini",
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float = 1.0,
        max_tokens: int = 1024,
        terminal_signal: str = TERMINAL_SIGNAL,
        *,
        persona: Persona | None = None,
        client: OpenAIClient | None = None,
    ) -> None:
        super().__init__(task_desc, single_turn_prompt, terminal_signal)
        self.name = self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.persona = persona or Persona()
        self.client = client or shared_client(base_url, api_key)
        self._template = load_prompt("user_simulator")
        self.prompt_hash = hashlib.sha256(self._template.encode()).hexdigest()[:16]

    def build_prompt(self, messages: Sequence[Message]) -> str:
        """Fill the prompt; texts with braces, quotes, dollar signs or marks pass unchanged."""
        spoken = [message for message in to_chat(messages) if message["role"] != "system"]
        return Template(self._template).substitute(
            goal=self.single_turn_prompt,
            task_desc=self.task_desc or "not said",
            terminal_signal=self.terminal_signal,
            persona=self.persona.to_prompt(),
            conversation=json.dumps(spoken, ensure_ascii=False, indent=1)
            if spoken
            else "nothing yet: you write the first message",
        )

    async def agenerate(
        self, messages: Sequence[Message], *, seed: int | None = None
    ) -> UserTurnResult:
        """Ask the server; an unreadable answer is asked for again, at most three times."""
        request: list[Message] = [{"role": "user", "content": self.build_prompt(messages)}]
        settings: dict[str, Any] = {"seed": seed} if seed is not None else {}
        for attempt in range(MAX_PARSE_RETRIES + 1):
            if "seed" in settings and attempt:
                settings["seed"] += 1  # a server that honours seeds would repeat itself
            answer = await self.client.complete(
                request,
                self.model,
                role="user",
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                response_format=_SCHEMA,
                keep_if=lambda answer: parse_user_output(answer.text) is not None,
                **settings,
            )
            turn = parse_user_output(answer.text)
            if turn is not None:
                return self._to_result(turn, answer.text)
            logger.info("The simulated user's output was unreadable (try %d).", attempt + 1)
            if not attempt:
                request = [*request, {"role": "user", "content": _REMINDER}]
        raise UnparseableError(
            f"The simulated user's output was unreadable {MAX_PARSE_RETRIES + 1} times."
        )

    def _to_result(self, turn: dict[str, str], raw_output: str) -> UserTurnResult:
        signalled = self.terminal_signal in turn["response"]
        return UserTurnResult(
            response=turn["response"].replace(self.terminal_signal, "").strip(),
            thought=turn["thought"],
            current_answer=turn["current_answer"],
            is_terminal=signalled,
            raw_output=raw_output,
        )
