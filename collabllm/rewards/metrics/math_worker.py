"""A process that compares mathematical answers, one JSON list [reference, reply] a line.

Started by `answer_metrics.py` as `python -I math_worker.py`; answers true, false or null (failed).
"""

import json
import logging
import signal
import sys
from types import FrameType

from math_verify import parse, verify

_LIMIT_S = 30


def compare(reference: str, reply: str) -> bool | None:
    """Return whether the reply's last answer equals the reference; None where that fails."""
    gold = parse(f"${reference}$") or parse(reference)
    if not gold:
        return None
    try:
        return bool(verify(gold, parse(reply)))
    except (ValueError, TypeError, ArithmeticError, TimeoutError):
        return None


def _give_up(signum: int, frame: FrameType | None) -> None:
    sys.exit(1)  # the caller starts another process


def main() -> None:
    """Answer until standard input ends."""
    logging.disable()
    signal.signal(signal.SIGVTALRM, _give_up)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT_S)
        print(json.dumps(compare(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
