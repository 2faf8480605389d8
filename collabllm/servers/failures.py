"""What a server's failure means: a setting it refuses, a full context, a fault that may pass."""

import email.utils
import json
import os
import random
import re
import time
from collections.abc import Mapping
from typing import Any

MAX_WAIT_S = 120.0
_BACKOFF_S = (0.5, 30.0)  # first and longest
_PASSING_STATUSES = (408, 409, 425, 429)
# OpenAI's codes for a setting that the model does not take, in contrast to a value out of range.
_REFUSAL_CODES = ("unsupported", "unknown", "extra_forbidden")
_REFUSAL_WORDS = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|unavailable"
    r"|not (?:supported|permitted|allowed)|does(?:n't| not) support",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z_]{2,40}")
# What a model may refuse, and what to send instead: None leaves the setting out.
REPLACEMENTS: Mapping[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "temperature": None,
    "top_p": None,
    "seed": None,
    "response_format": None,
    "stream_options": None,
}


class StatusError(Exception):
    """An answer with an error status; its body may carry a key or a goal and is never shown.

    Args:
        status: HTTP status.
        headers: Headers of the answer, names in lower case.
        body: The answer as text.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(f"status {status}")
        self.status, self.headers = status, headers
        try:
            self.content: Any = json.loads(body)
        except json.JSONDecodeError:
            self.content = body
        error = self.content.get("error") if isinstance(self.content, dict) else None
        self._error: Mapping[str, Any] = error if isinstance(error, dict) else {}
        self.param = str(self._error.get("param") or "").split(".")[0]
        self.code = str(self._error.get("code") or self._error.get("type") or "")
        self.message = str(self._error.get("message") or self.content)

    @property
    def is_passing(self) -> bool:
        """Whether another try may succeed; an empty account stays empty."""
        if self.code == "insufficient_quota":
            return False
        return self.status >= 500 or self.status in _PASSING_STATUSES

    @property
    def is_context_full(self) -> bool:
        """Recognise OpenAI's error code, and the words that vLLM, SGLang and llama.cpp use."""
        text = str(self.content).lower()
        return self.status == 400 and (
            "context_length_exceeded" in text
            or "exceed_context_size" in text
            or "maximum context length" in text
            or "exceeds the available context" in text
            or "longer than the model's context" in text
        )

    def refused_setting(self, sent: Mapping[str, Any]) -> str | None:
        """Return which of the settings that were sent the model does not take, if it says so."""
        if self.status not in (400, 422):
            return None
        names = [name for name in REPLACEMENTS if name in sent]
        if self.param:
            is_refusal = self.code.startswith(_REFUSAL_CODES) or _REFUSAL_WORDS.search(self.message)
            return self.param if self.param in names and is_refusal else None
        for sentence in re.split(r"[.;\n{}]\s*", self.message):
            if _REFUSAL_WORDS.search(sentence):
                for name in names:
                    spelled = name.replace("_", "[_ ]")
                    if re.search(rf"(?<![\w.]){spelled}(?!\w)", sentence):
                        return name
        return None

    def may_refuse_format(self, sent: Mapping[str, Any]) -> bool:
        """Whether the form of the answer may be what is refused, though nothing says so."""
        unexplained = self.status in (400, 422) and not self.param and not self.is_context_full
        return unexplained and "response_format" in sent

    @property
    def label(self) -> str:
        """The status, and the error's code where it is a plain identifier."""
        return (
            f"{self.status}, {self.code}" if _IDENTIFIER.fullmatch(self.code) else f"{self.status}"
        )

    def hint(self, model: str) -> str:
        """Say what to check after a refusal, or nothing."""
        if self.status in (401, 403):
            is_set = "is set" if os.environ.get("OPENAI_API_KEY") else "is not set"
            return f" Check the key: the variable OPENAI_API_KEY {is_set}."
        if self.status == 404:
            return f" Check the address, which ends in /v1 as a rule, and the model: {model}."
        return ""

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait, from milliseconds, seconds or a date."""
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            value = self.headers.get(name)
            if value is None:
                continue
            try:
                seconds = float(value) * unit
            except ValueError:
                date = email.utils.parsedate_tz(value)
                if date is None:
                    continue
                seconds = email.utils.mktime_tz(date) - time.time()
            if seconds == seconds:  # not NaN
                return min(max(seconds, 0.0), MAX_WAIT_S)
        return None


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures: doubling from half a second, the upper half random.

    14 retries wait for 2.3 to 4.5 minutes together, which outlasts the restart of a server.
    """
    first, longest = _BACKOFF_S
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)
