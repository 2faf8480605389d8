"""Load multi-turn datasets from a Hub id, a folder or a file, flat or nested, and check them."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from collabllm.data.demo_generator import demo_fingerprint, generate_rows
from collabllm.data_processing.arrow_rows import write_arrow
from collabllm.data_processing.formats import Rows, bad_row, convert_rows, find_format
from collabllm.data_processing.row_checks import (
    REQUIRED_COLUMNS,
    check_rows,
    describe_missing_columns,
    fill_turn_ids,
    find_row_error,
    report_skipped,
)
from collabllm.files import find_split_file, is_saved_dataset, refuse_unreadable
from collabllm.hub import check_reachable
from collabllm.messages import shorten, to_valid_text

BUNDLED_DATASET = "demo"


def load_multiturn_dataset(
    path: str | Path,
    split: str = "train",
    *,
    config_name: str | None = None,
    skip_bad_rows: bool = False,
) -> Dataset:
    """Load a dataset in the multi-turn format, or in one of `formats`, and check every row.

    Rows live in a memory-mapped Arrow file, not in Python objects. Nested rows (`turns`, each with
    `responses`) become one row a response, with the row's position as `conv_id` when it has none.
    A missing `turn_id` is filled in with `len(prompt)`. Other columns survive.

    Args:
        path: A Hub id, a folder written by `save_to_disk`, a `.jsonl`, `.json` or `.parquet` file,
            or `"demo"` for the bundled demo dataset.
        split: Which split of a Hub dataset or a folder.
        config_name: Which configuration of a Hub dataset.
        skip_bad_rows: Leave malformed rows out, with a warning that counts them.

    Raises:
        FileNotFoundError: If `path` looks like a file or folder and is not there.
        ValueError: If a row is malformed; the text names file, row, column, value and remedy. If
            something local is to have a configuration.
    """
    file = Path(path).expanduser()
    if config_name and (str(path) == BUNDLED_DATASET or file.exists()):
        raise ValueError(
            f"{path}: --dataset_config {config_name} is for datasets of the Hub. Leave it out; "
            "where a folder has several configurations, name the folder or file of one."
        )
    if str(path) == BUNDLED_DATASET:
        return write_arrow(_read_bundled, {"fingerprint": demo_fingerprint()})
    if file.suffix in (".jsonl", ".json"):
        return _load_json(_existing(file), skip_bad_rows)
    if file.suffix == ".parquet":
        data_files = str(_existing(file))
        table = load_dataset("parquet", data_files=data_files, split="train")
        return _from_dataset(table, str(file), skip_bad_rows)
    if is_saved_dataset(file):
        saved = _take_split(load_from_disk(str(file)), split, str(path))
        return _from_dataset(saved, str(path), skip_bad_rows)
    inside = find_split_file(file, split)
    if inside:
        return load_multiturn_dataset(inside, split, skip_bad_rows=skip_bad_rows)
    refuse_unreadable(path, split)
    check_reachable(str(path), "dataset")
    table = load_dataset(str(path), config_name, split=split)
    return _from_dataset(table, f"{path}[{split}]", skip_bad_rows)


_WRAPPED = re.compile(r'\s*\{\s*("\w+"\s*:\s*("(?:[^"\\]|\\.)*"|[\w.+-]+)\s*,\s*)*"data"\s*:\s*\[')

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _read_bundled(fingerprint: str, report: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the demo's rows; `fingerprint` only tells the cache one demo from another."""
    numbered = enumerate(generate_rows(), start=1)
    return check_rows(
        ((f"row {idx}", row) for idx, row in numbered), BUNDLED_DATASET, report=report
    )


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file.")
    return file


def _take_split(saved: Dataset | DatasetDict, split: str, name: str) -> Dataset:
    if isinstance(saved, Dataset):
        return saved
    if split not in saved:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(map(str, saved))}.")
    return saved[split]


def _load_json(file: Path, skip_bad_rows: bool) -> Dataset:
    stat = file.stat()
    return write_arrow(
        _read_checked_json,
        {
            "file": str(file.resolve()),
            "name": str(file),
            "fingerprint": f"{stat.st_size}-{stat.st_mtime_ns}",
            "skip_bad_rows": skip_bad_rows,
        },
    )


def _read_checked_json(
    file: str, name: str, fingerprint: str, skip_bad_rows: bool, report: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield checked flat rows; `fingerprint` only tells the cache one content from another."""
    rows = convert_rows(_flatten(iter_json(Path(file), keep_bad=True)), name, report)
    return check_rows(rows, name, skip_bad_rows, report)


def _from_dataset(dataset: Dataset, name: str, skip_bad_rows: bool = False) -> Dataset:
    if "turns" in dataset.column_names or find_format(dataset.column_names):
        options = {"dataset": dataset, "name": name, "skip_bad_rows": skip_bad_rows}
        return write_arrow(_read_other, options)
    missing = [column for column in REQUIRED_COLUMNS if column not in dataset.column_names]
    if missing:
        raise ValueError(f"{name}: {describe_missing_columns(missing, dataset.column_names)}")
    if skip_bad_rows:
        dataset = _take_good_rows(dataset, name)
    for _ in check_rows(_iter_dataset(dataset), name):
        pass
    return fill_turn_ids(dataset)


def _take_good_rows(dataset: Dataset, name: str) -> Dataset:
    found = [(idx, find_row_error(row)) for idx, row in enumerate(dataset)]
    report_skipped(name, [f"row {idx + 1}: {error}" for idx, error in found if error])
    return dataset.select([idx for idx, error in found if not error])


def _read_other(
    dataset: Dataset, name: str, skip_bad_rows: bool, report: bool = True
) -> Iterator[dict[str, Any]]:
    rows = convert_rows(_flatten(_iter_dataset(dataset)), name, report)
    return check_rows(rows, name, skip_bad_rows, report)


def _iter_dataset(dataset: Dataset) -> Rows:
    for idx, row in enumerate(dataset, start=1):
        yield f"row {idx}", row


def iter_json(file: Path, keep_bad: bool = False) -> Rows:
    """Yield the objects of a JSON Lines file or of one JSON list, holding one at a time.

    The list may be the one under `data` in an object, as in the SQuAD family. Half of a surrogate
    pair, as a text that was cut in an emoji ends with, becomes a question mark.

    Args:
        file: A `.jsonl` or `.json` file.
        keep_bad: Yield a line that is not JSON as a `bad_row`, instead of an error.

    Raises:
        ValueError: If the file is not UTF-8 or not JSON.
    """
    if file.suffix == ".jsonl":
        for idx, line in enumerate(_read_lines(file), start=1):
            if not line.strip():
                continue
            try:
                row = _mend(_parse(partial(json.loads, line), file, idx), line)
            except ValueError as error:
                if not keep_bad:
                    raise
                row = bad_row(f"not valid JSON ({error.__cause__}).")
            yield f"row {idx}", row
        return
    text = "".join(_read_lines(file))
    decoder, position, idx = json.JSONDecoder(), len(text) - len(text.lstrip()), 0
    if wrapped := _WRAPPED.match(text):
        position = wrapped.end() - 1
    if text[position : position + 1] != "[":
        raise ValueError(
            f"{file.name}: must hold a JSON list of rows, or an object with one under 'data'; use "
            ".jsonl for JSON Lines."
        )
    position = _skip(text, position + 1, " \n\r\t")
    while text[position : position + 1] != "]":
        idx += 1
        begin = position
        row, position = _parse(partial(decoder.raw_decode, text, position), file, idx)
        row = _mend(row, text[begin:position])
        position = _skip(text, position, " \n\r\t")
        if text[position : position + 1] not in (",", "]"):
            raise ValueError(f"{file.name} row {idx}: expected ',' or ']' after the row.")
        position = _skip(text, position, " \n\r\t,")
        yield f"row {idx}", row


def _read_lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            yield from stream
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file.name}: is not UTF-8 ({error.reason}); save it as UTF-8."
        ) from error


def _parse(parse: Callable[[], Any], file: Path, idx: int) -> Any:
    try:
        return parse()
    except (ValueError, RecursionError) as error:  # ValueError also of numbers with 5,000 digits
        raise ValueError(f"{file.name} row {idx}: not valid JSON ({error}).") from error


def _mend(row: Any, text: str) -> Any:
    """Return a row that a file takes, too, whatever halves of surrogate pairs its text has."""
    if not _SURROGATE.search(text):
        return row
    return json.loads(to_valid_text(json.dumps(row, ensure_ascii=False)))


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _flatten(rows: Rows) -> Rows:
    """Turn nested rows into one row a response; flat rows pass through."""
    for conv_idx, (where, row) in enumerate(rows):
        if not isinstance(row, dict) or "turns" not in row:
            yield where, row
            continue
        shared = {key: value for key, value in row.items() if key != "turns"}
        if shared.get("conv_id") is None:
            shared["conv_id"] = conv_idx
        if not isinstance(row["turns"], list):
            yield where, bad_row(f"'turns' must be a list, got {shorten(row['turns'])}.")
            continue
        for turn_idx, turn in enumerate(row["turns"]):
            if not isinstance(turn, dict) or not isinstance(turn.get("responses"), list):
                yield (
                    f"{where}, turn {turn_idx}",
                    bad_row(
                        f"must be a dict with 'prompt' and a list of 'responses', got "
                        f"{shorten(turn)}."
                    ),
                )
                continue
            own = {key: value for key, value in turn.items() if key != "responses"}
            for response_idx, response in enumerate(turn["responses"]):
                place = f"{where}, turn {turn_idx}, response {response_idx}"
                if not isinstance(response, dict):
                    yield place, bad_row(f"must be a dict, got {shorten(response)}.")
                    continue
                yield place, {**shared, **own, **response}
