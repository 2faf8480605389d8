"""The commands that the README and the guides print, as they are printed and as they are run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = "†"  # needs a GPU, an account, the network, or another machine
_PROGRAMS = ("uv", "uvx", "make", "pip", "apt", "vllm", "nvidia-smi", "python", "accelerate")
_SHELL_ENDS = ("&", "|", ";", "&&", ">", "done")
_CALLED = r"(scripts|benchmarks)/\w+\.py"
_LEFT_OUT = ("…", "...")


@dataclass(frozen=True)
class Command:
    """A command of a page; `words` begin at the script, or at the program."""

    page: str
    line: str
    words: tuple[str, ...]
    is_marked: bool

    @property
    def name(self) -> str:
        """`scripts/train_sft.py`, `make`, `uv`, …"""
        return self.words[0]


def code_blocks(text, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def printed_lines(page):
    """Give (line, whether marked) of blocks of bash, and of what stands between backticks."""
    text = page.read_text(encoding="utf-8")
    for block in code_blocks(text, "(?:bash|sh)"):
        for line in block.replace("\\\n", " ").splitlines():
            yield line, MARK in line
    without_blocks = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    for found in re.finditer(rf"`([^`]+)`({MARK})?", without_blocks):
        yield found[1].replace("\n", " "), found[2] is not None


def printed_commands():
    """Give every command of the README and of the guides once a page."""
    found = {}
    for page in GUIDES:
        for line, is_marked in printed_lines(page):
            words = _to_words(line, is_benchmark=page.name == "benchmarks.md")
            if words:
                found.setdefault((page.name, words), Command(page.name, line, words, is_marked))
    more = {(page, words[0]) for page, words in found if len(words) > 1}
    return [
        c for (page, words), c in found.items() if len(words) > 1 or (page, words[0]) not in more
    ]


def _to_words(line, is_benchmark):
    """Return the words of a command from its script or program on; none if it is no command."""
    line = re.sub(r"^for (\w+) in (\w+).*?; do (.*)", lambda m: _first_of(*m.groups()), line)
    words = []
    for word in shlex.split(line, comments=True) if "'" not in line or line.count("'") > 1 else []:
        if word in _SHELL_ENDS:
            break
        words += [] if word in _LEFT_OUT else [word.rstrip(";")]
    if is_benchmark and words and re.fullmatch(r"\w+\.py", words[0]):
        words[0] = f"benchmarks/{words[0]}"
    places = [i for i, word in enumerate(words) if re.fullmatch(_CALLED, word)]
    place = places[0] if places else 0
    is_call = place > 0 or len(words) > 1 or is_benchmark
    if words and re.match(r"(scripts|benchmarks)/", words[place]):
        return tuple(words[place:]) if is_call else ()
    while words[:1] == ["uv"] and words[1:2] == ["run"]:
        words = [word for word in words[2:] if word != "--no-sync"]
    is_pattern = words in (["python"], ["uv"], ["uvx"], ["make"])
    return tuple(words) if words and words[0] in _PROGRAMS and not is_pattern else ()


def _first_of(name, value, body):
    return body.replace(f"${name}", value)
