"""A process that compares mathematical answers, one JSON list [reference, reply] a line.

Started by `math_process.py` as `python -I math_worker.py`; answers true, false or null (the
reference is unreadable), after a first line that says it is ready. The caller kills it when the
time of a comparison is up; math-verify's own limits are off, since on a busy machine they end
before a right answer is read, and count it as wrong.
"""

import json
import logging
import sys
from typing import Any

from math_verify import parse, verify


def compare(reference: str, reply: str) -> bool | None:
    """Return whether the reply's last answer equals the reference; None where that fails."""
    gold = _parse(f"${reference}$") or _parse(reference)
    if not gold:
        return None
    try:
        return bool(verify(gold, _parse(reply), timeout_seconds=None))
    except (ValueError, TypeError, ArithmeticError, TimeoutError):
        return None


def _parse(text: str) -> Any:
    return parse(text, parsing_timeout=None)


def main() -> None:
    """Answer until standard input ends."""
    logging.disable()
    print(json.dumps(compare("1", "$1$")), flush=True)  # loads what the first comparison needs
    for line in sys.stdin:
        print(json.dumps(compare(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
