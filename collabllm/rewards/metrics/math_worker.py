"""A process that compares mathematical answers, one JSON list [reference, reply] a line.

Started by `math_process.py` as `python -I math_worker.py`; answers true, false or null (the
reference is unreadable). The caller kills it when the time of a comparison is up.
"""

import json
import logging
import sys

from math_verify import parse, verify


def compare(reference: str, reply: str) -> bool | None:
    """Return whether the reply's last answer equals the reference; None where that fails."""
    gold = parse(f"${reference}$") or parse(reference)
    if not gold:
        return None
    try:
        return bool(verify(gold, parse(reply)))
    except (ValueError, TypeError, ArithmeticError, TimeoutError):
        return None


def main() -> None:
    """Answer until standard input ends."""
    logging.disable()
    for line in sys.stdin:
        print(json.dumps(compare(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
