"""A user played by a model that was trained to be one: its own roles, and a token for the end."""

import re
from collections.abc import Sequence
from typing import Any

from collabllm.messages import Message, to_chat
from collabllm.simulation.user_models.base import UserTurnResult
from collabllm.simulation.user_models.server import ServerUserModel

END_TOKEN = "<|endconversation|>"
_SPECIAL_TOKEN = re.compile(r"<\|[a-z_]+\|>")


class NativeUserModel(ServerUserModel):
    """A user without JSON and without a prompt that explains how to be one, such as UserLM-8b.

    The goal is the system message, the conversation follows in its own roles, and the model goes on
    as the user; its chat template has to open a user message. It ends the conversation by a token.

    Args:
        args: As in `ServerUserModel`.
        top_p: Sample from the likeliest tokens with this much probability; 0.8 is what UserLM-8b's
            authors recommend.
        kwargs: As in `ServerUserModel`.

    Source: arXiv:2510.06552 and https://huggingface.co/microsoft/UserLM-8b.
    """

    default_model = "microsoft/UserLM-8b"
    default_terminal_signal = END_TOKEN

    def __init__(self, *args: Any, top_p: float = 0.8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.top_p = top_p

    def build_request(self, messages: Sequence[Message]) -> list[Message]:
        """Return the goal as the system message, and the conversation as it was."""
        spoken = [message for message in to_chat(messages) if message["role"] != "system"]
        intent = f"You are a user who wants this: {self.single_turn_prompt}"
        goal: Message = {"role": "system", "content": intent}
        return [goal, *spoken]

    def request_settings(self) -> dict[str, Any]:
        """Ask vLLM and SGLang to leave the token of the end in the text."""
        return {"top_p": self.top_p, "extra_body": {"skip_special_tokens": False}}

    def read(self, answer: str) -> UserTurnResult | None:
        """Read the message; None where it is empty and does not end the conversation."""
        is_terminal = self.terminal_signal in answer
        text = answer.partition(self.terminal_signal)[0] if is_terminal else answer
        text = _SPECIAL_TOKEN.sub("", text).strip()
        if not text and not is_terminal:
            return None
        return UserTurnResult(text, is_terminal=is_terminal, raw_output=answer)
