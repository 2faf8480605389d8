"""Files that survive a kill: append-only JSON Lines, whole files replaced at once."""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

_MIN_FREE_BYTES = 50_000_000


class JsonLinesWriter:
    """Appends JSON lines to a file, several at a time, and flushes them.

    Args:
        path: The JSONL file.
        resume: Go on with an existing file; what a kill left half-written is cut off.

    One process at a time: a second one on the same file is refused.

    Raises:
        FileExistsError: If there is a file and `resume` is False.
        OSError: If the file cannot be written, another process writes it, or the disk is nearly
            full.
        ValueError: If a line other than the last is not a record.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        if free < _MIN_FREE_BYTES:
            raise OSError(
                f"{self.path.parent}: only {free / 1e6:.0f} MB are free; make room first."
            )
        self._held = ExitStack()
        taken = OSError(f"{self.path}: another process writes it; wait for its end.")
        self._held.enter_context(hold_lock(self.path.with_name(f".{self.path.name}.lock"), taken))
        try:
            if self.path.exists() and self.path.stat().st_size:
                self._take_up(resume)
            self._stream = self.path.open("a", encoding="utf-8", errors="replace")
        except BaseException:
            self._held.close()
            raise

    def _take_up(self, resume: bool) -> None:
        if not resume:
            raise FileExistsError(
                f"{self.path} exists; go on with --resume, or choose another --output."
            )
        _replace_lines(self.path, map(_to_line, self.iter_kept(read_json_lines(self.path))))

    def iter_kept(self, records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the records that a resumed file keeps, one at a time where it can."""
        return iter(self.choose_kept(list(records)))

    def choose_kept(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the records that a resumed file keeps; all of them unless overridden."""
        return records

    def write(self, *records: dict[str, Any]) -> None:
        """Append records at once; they are with the operating system when this returns."""
        self._stream.write("".join(map(_to_line, records)))
        self._stream.flush()

    def close(self) -> None:
        """Close the file, and let others write it."""
        self._stream.close()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def hold_lock(path: Path, taken: OSError) -> Iterator[None]:
    """Keep other processes out of what this lock file guards; it is removed at the end.

    Args:
        path: The lock file.
        taken: Raised where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise taken from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file; a torn last line is passed over with a warning.

    A byte-order mark and blank lines, as an editor leaves them, are no records.

    Raises:
        ValueError: If another line is not a JSON object.
    """
    with Path(path).open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    logger.warning("%s: the torn last line %d is dropped.", path, number)
                    return
                raise ValueError(f"{path} line {number}: not a record ({error}).") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path} line {number}: not a JSON object.")
            yield record


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Read a file that holds one JSON object, such as the header of a run.

    Raises:
        ValueError: If it does not, as when a copy of it was cut.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's and UTF-8's
        raise ValueError(
            f"{path}: is damaged, not JSON ({error}); put a whole copy of it back, or do what "
            "made it again in a new folder."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(found).__name__}.")
    return found


def sort_json_lines(path: str | Path, columns: Sequence[str]) -> None:
    """Sort a closed file by columns: its lines came as conversations ended, in no fixed order.

    Memory holds where each line is, not the lines.
    """
    places: list[tuple[Any, ...]] = []
    with Path(path).open("rb") as stream:
        offset = 0
        for line in stream:
            record = json.loads(line)
            places.append((*(record[column] for column in columns), offset, len(line)))
            offset += len(line)

        def lines() -> Iterator[str]:
            for *_, start, length in sorted(places):
                stream.seek(start)
                yield stream.read(length).decode(errors="replace")

        _replace_lines(Path(path), lines())


def write_text(path: str | Path, text: str) -> None:
    """Write a file at once: a kill leaves the former one or the new one, never a part."""
    _replace_lines(Path(path), [text])


def _replace_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("w", encoding="utf-8", errors="replace") as stream:
        stream.writelines(lines)
    scratch.replace(path)


def _to_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def find_split_file(folder: Path, split: str) -> Path | None:
    """Find a split's file in a folder, as `build_dataset.py` leaves it, or None."""
    files = [folder / f"{split}{suffix}" for suffix in (".jsonl", ".json", ".parquet")]
    return next((file for file in files if file.is_file()), None)


def refuse_unreadable(path: str | Path, split: str) -> None:
    """Refuse what is here but holds no rows, or must be here and is not; the Hub may have others.

    Args:
        path: Neither a file of rows nor a folder of `save_to_disk` or with a file of the split.
        split: Split that was looked for.

    Raises:
        FileNotFoundError: If it is a folder, or looks like a file and is not there.
        ValueError: If it is a file of another type.
    """
    file = Path(path).expanduser()
    if file.is_file():
        raise ValueError(f"{path}: unknown file type; use .jsonl, .json or .parquet.")
    if file.is_dir():
        found = ", ".join(sorted(item.name for item in file.iterdir())[:5]) or "nothing"
        raise FileNotFoundError(
            f"{path}: there is no {split}.jsonl, .json or .parquet in this folder, and it is none "
            f"of save_to_disk; it holds {found}."
        )
    if file.is_absolute() or str(path).startswith("."):
        raise FileNotFoundError(f"{path}: there is no such file or folder.")


def is_saved_dataset(folder: Path) -> bool:
    """Tell whether a folder was written by the `save_to_disk` of `datasets`."""
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
