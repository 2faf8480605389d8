"""One self-contained HTML file: the answer, tables, charts and conversations."""

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from collabllm import __version__
from collabllm.evaluation.report.conversations import Conversation

_TEMPLATE = "report.html.j2"
_SCRIPTS = ("text.js", "charts.js", "dialogue.js", "conversations.js", "report.js")
_CHUNK = 100  # conversations that the browser unpacks at once
_LEVEL = 3  # of compression: twice as fast as the default, for a tenth more bytes
_GENERATOR = "CollabLLM"


def render(
    path: Path,
    *,
    title: str,
    conversations: Iterable[Conversation],
    metrics: Iterable[str] = (),
    source: str = "",
    note: str = "",
    evaluation: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page; every text reaches it as data, never as markup.

    Conversations are taken and written one by one, packed by the hundred, so that a page of any
    length needs little memory here, and opens at once.

    Args:
        path: Path of the HTML file.
        title: Title of the page.
        conversations: What the table at the end lists.
        metrics: Names of their scores, in the order of the columns.
        source: What the page shows: a page of the same source is replaced.
        note: A sentence above the table of conversations.
        evaluation: From `overview.describe`, or None for conversations alone.
        overwrite: Replace whatever file is there.

    Raises:
        FileExistsError: If another file is there.
    """
    check_replaceable(path, source, overwrite=overwrite)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("collabllm.evaluation.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader = environment.loader
    assert loader is not None
    script = "\n".join(loader.get_source(environment, name)[0] for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    table = _Table(conversations, list(metrics))
    stream = environment.get_template(_TEMPLATE).stream(
        title=title,
        mark=markupsafe.Markup(_mark(source)),
        note=note,
        evaluation=evaluation,
        evaluation_data=_to_json(evaluation["data"]) if evaluation else "null",
        table=table,
        script=script,
        digest=digest,
        version=__version__,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    try:
        with scratch.open("w", encoding="utf-8", errors="replace") as file:
            file.writelines(stream)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def check_replaceable(path: Path, source: str, *, overwrite: bool = False) -> None:
    """Refuse to write over anything but a former page of the same source.

    Raises:
        FileExistsError: With what to do.
    """
    if overwrite or not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(4096).decode("utf-8", "replace")
    if not path.is_file() or _mark(source) not in head:
        raise FileExistsError(
            f"{path} exists and is no former page of the same source; choose another "
            "--output_file, or --overwrite."
        )


def _mark(source: str) -> str:
    """Return what the head of a page of this source has."""
    digest = hashlib.sha256(source.encode("utf-8", "replace")).hexdigest()[:16]
    return f'<meta name="generator" content="{_GENERATOR}" data-source="{digest}">'


class _Table:
    """The conversations for the template: packed by the hundred, then the table's rows."""

    def __init__(self, conversations: Iterable[Conversation], metrics: list[str]) -> None:
        self._conversations, self._metrics = iter(conversations), metrics
        self._rows: list[list[Any]] = []

    def chunks(self) -> Iterator[str]:
        """Yield packed conversations: JSON, deflated, in base64."""
        while block := list(islice(self._conversations, _CHUNK)):
            self._rows += [conversation.to_row(self._metrics) for conversation in block]
            bodies = _dump([conversation.to_body() for conversation in block], ensure_ascii=True)
            yield base64.b64encode(zlib.compress(bodies.encode(), _LEVEL)).decode()

    def index(self) -> str:
        """Return the table's rows as JSON; after `chunks`."""
        return _to_json({"metrics": self._metrics, "chunk": _CHUNK, "rows": self._rows})

    def __len__(self) -> int:
        return len(self._rows)


def _to_json(value: Any) -> str:
    """Write JSON that cannot end a script element."""
    return _dump(value, ensure_ascii=False).replace("<", "\\u003c")


def _dump(value: Any, *, ensure_ascii: bool) -> str:
    """Write JSON; a number that is none (NaN, infinite) is null, as no browser reads it."""
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=ensure_ascii, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
