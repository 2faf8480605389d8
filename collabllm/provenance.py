"""What made a result: versions, prompts and settings; a resumed run with others is refused."""

import json
import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from collabllm import __version__
from collabllm.files import read_json_object, write_text
from collabllm.prompts import prompt_hashes

logger = logging.getLogger(__name__)

_LIBRARIES = ("openai", "peft", "torch", "transformers", "trl")


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Return the versions of this project and of the libraries that decide about results."""
    found = {"collabllm": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class RunHeader:
    """A JSON file beside the results of a run: its settings, versions, prompts and what it spent.

    Args:
        path: Path of the file.
        settings: All that decides about the results; JSON values.
        resume: Go on with the run of the file.
        contents: Hashes of what is read from files, by name.
        results: The file of results; it goes on only with its header.

    Raises:
        FileNotFoundError: If there are results to go on with and nothing says what made them.
        ValueError: If a setting, a prompt or a content differs from that of the run to go on with,
            or the file is damaged. Other versions of the libraries are a warning.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any],
        *,
        resume: bool,
        contents: Mapping[str, str] | None = None,
        results: Path | None = None,
    ) -> None:
        self.path = Path(path)
        contents = contents or {}
        before: dict[str, Any] = {}
        if resume and self.path.is_file():
            before = read_json_object(self.path)
            refuse_changes(before.get("settings", {}), settings)
            refuse_changes(before.get("prompt_hashes", {}), prompt_hashes(), what="the prompt ")
            refuse_changes(before.get("contents", {}), contents, what="the content of ")
            _warn_of_versions(before.get("versions", {}))
        elif resume and results and results.is_file() and results.stat().st_size:
            raise FileNotFoundError(
                f"--resume: {self.path} is missing, which says what made {results}; put it back, "
                "or use another --output_dir."
            )
        self.spent_usd = float(before.get("spent_usd", 0.0))
        self.before = before
        self._content = {
            "settings": dict(settings),
            "versions": library_versions(),
            "prompt_hashes": prompt_hashes(),
            "contents": {**before.get("contents", {}), **contents},
        }

    def write(self, spent_usd: float = 0.0, **facts: Any) -> None:
        """Write the file, with what was spent since the run was started or resumed.

        Args:
            spent_usd: Dollars.
            facts: Further JSON values; a resumed run finds them in `before`.
        """
        content = {**self._content, "spent_usd": self.spent_usd + spent_usd, **facts}
        write_text(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _warn_of_versions(before: Mapping[str, str]) -> None:
    now = library_versions()
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            logger.warning(
                "--resume: %s was %s and is %s now; the results may differ from there on.",
                name,
                before[name],
                now[name],
            )


def refuse_changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    ignored: Iterable[str] = (),
    what: str = "",
    flag: str = "--resume",
    remedy: str = "another --output_dir",
) -> None:
    """Compare settings of a run with those it is to go on with.

    A setting that the former version of the program did not have is not compared.

    Raises:
        ValueError: That names the setting, its former and its present value.
    """
    now = json.loads(json.dumps(dict(now)))
    for name in sorted((set(before) & set(now)) - set(ignored)):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{flag}: {what}{name} was {before.get(name)!r} and is {now.get(name)!r} now; "
                f"use the former value, or {remedy}."
            )
