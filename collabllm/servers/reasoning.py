"""Tell what a reasoning model thinks from what it says."""

import re

_THOUGHTS = re.compile(r"\s*<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_OPENED_BY_TEMPLATE = re.compile(r"(.*?)</think>", re.DOTALL)


def split_reasoning(text: str) -> tuple[str, str]:
    """Split a reply into thoughts and what others may see.

    The thoughts stand first, between `<think>` and `</think>`. Some chat templates open them in
    the prompt, so that the reply has the end alone; thoughts that were cut have no end, and then
    there is nothing to see.

    Returns:
        Thoughts, and the reply without them.
    """
    found = _THOUGHTS.match(text)
    if found is None and "<think>" not in text:
        found = _OPENED_BY_TEMPLATE.match(text)
    if found is None:
        return "", text
    return found.group(1).strip(), text[found.end() :].strip()
