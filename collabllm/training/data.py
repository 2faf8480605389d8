"""The data of a run: loaded, joined and weighed, and shared by all its processes."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    Value,
    concatenate_datasets,
    load_from_disk,
)

from collabllm.data_processing.arrow_rows import FIXED_FEATURES
from collabllm.data_processing.loading import load_multiturn_dataset
from collabllm.data_processing.selection import check_prompts, drop_unscored
from collabllm.messages import Message, to_chat
from collabllm.training.preflight import Preflight
from collabllm.training.tokenizing import no_rows

logger = logging.getLogger(__name__)

_FOLDER = "tokenized"
_FACTS_FILE = "facts.json"


@dataclass
class TrainingData:
    """What a method trains on and is measured on.

    `train` and `eval` are what its trainer takes; `eval` is empty where nothing is held out.
    `ranked` has `input_ids` and `labels` of held-out pairs: best, worst, best, worst, ….
    """

    train: Dataset
    preflight: Preflight
    facts: dict[str, Any]
    eval: Dataset = field(default_factory=no_rows)
    ranked: Dataset = field(default_factory=no_rows)
    samples: list[list[Message]] = field(default_factory=list)
    folder: Path | None = None

    def forget(self) -> None:
        """Remove the copy that the processes share."""
        if self.folder and PartialState().is_local_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)


def prepare_once(prepare: Callable[[], TrainingData], run_folder: Path) -> TrainingData:
    """Prepare the data in one process, or one per machine that does not share the folder.

    All read the same files, so what is cached beside them, such as DPO's log-probabilities of the
    reference, is found by all.

    Args:
        prepare: Makes the data, and prints what it finds.
        run_folder: The run's output folder, which takes the copy until the run is over.
    """
    folder, state = run_folder / _FOLDER, PartialState()
    stamps = [uuid4().hex]
    broadcast_object_list(stamps)  # tells this run's copy from what a killed one left
    with state.main_process_first():
        if state.is_main_process:
            _save(prepare(), folder, stamps[0])
    with state.local_main_process_first():
        if state.is_local_main_process and not (folder / stamps[0]).is_file():
            _save(prepare(), folder, stamps[0])
        return _load(folder)


def _save(data: TrainingData, folder: Path, stamp: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    sides = {"train": data.train, "eval": data.eval, "ranked": data.ranked}
    full = {name: rows for name, rows in sides.items() if len(rows)}  # empty ones do not load again
    DatasetDict(full).save_to_disk(str(folder))
    rest = {
        "preflight": data.preflight.to_dict(),
        "facts": data.facts,
        "samples": data.samples,
    }
    (folder / _FACTS_FILE).write_text(json.dumps(rest), encoding="utf-8")
    (folder / stamp).touch()


def _load(folder: Path) -> TrainingData:
    sides = load_from_disk(str(folder))
    rest = json.loads((folder / _FACTS_FILE).read_text(encoding="utf-8"))
    return TrainingData(
        **sides,
        preflight=Preflight(**rest["preflight"]),
        facts=rest["facts"],
        samples=rest["samples"],
        folder=folder,
    )


def load_rows(settings: Any) -> Dataset:
    """Load the datasets that the settings name, as checked rows of one table.

    With several, a conversation's `conv_id` begins with the position of its dataset, and columns
    that are not the same everywhere are left out, as are keys of a column of dicts. A column that
    tells the tasks stays, without a value in datasets that lack it.

    Raises:
        ValueError: If rows are malformed, or replies of one turn answer different prompts.
    """
    tables = [
        load_multiturn_dataset(
            path,
            settings.dataset_split,
            config_name=settings.dataset_config,
            skip_bad_rows=settings.skip_bad_rows,
        )
        for path in settings.hf_dataset_path
    ]
    for idx, (path, table) in enumerate(zip(settings.hf_dataset_path, tables, strict=True)):
        check_prompts(table, path)
        if settings.skip_bad_rows:
            tables[idx] = drop_unscored(table, settings.score_column, path)
    return tables[0] if len(tables) == 1 else _join(tables, settings.split_by)


def _share_keys(tables: list[Dataset], name: str) -> list[Dataset]:
    """Leave in a column of dicts the keys that all datasets have."""
    kinds = [table.features.get(name) for table in tables]
    first = kinds[0]
    if not all(isinstance(kind, dict) for kind in kinds) or kinds.count(first) == len(kinds):
        return tables
    plain = {key: kind for key, kind in first.items() if isinstance(kind, Value)}
    shared = {key: kind for key, kind in plain.items() if all(k.get(key) == kind for k in kinds)}
    if not shared:
        return tables
    logger.info("%s: keys that all datasets have: %s.", name, ", ".join(shared))
    narrowed = []
    for table in tables:
        rows = [row and {key: row[key] for key in shared} for row in table[name]]
        narrowed.append(table.remove_columns(name).add_column(name, rows, feature=shared))
    return narrowed


def _cast_fixed(table: Dataset) -> Dataset:
    """Give the columns of the dataset format the same types everywhere."""
    types = Features({**table.features, **FIXED_FEATURES})
    if types == table.features:
        return table
    return table.map(lambda row: {"prompt": to_chat(row["prompt"])}, features=types)


def _keep_tasks(tables: list[Dataset], name: str) -> list[Dataset]:
    """Fill a column of tasks where a dataset has none; without it, tasks would be on both sides."""
    kinds = [table.features.get(name) for table in tables]
    known = [kind for kind in kinds if kind not in (None, Value("null"))]
    same = known.count(known[0]) == len(known) if known else True
    if not known or not (same or all(isinstance(kind, Value) for kind in known)):
        return tables
    shared = known[0] if same else Value("string")
    filled = []
    for table, kind in zip(tables, kinds, strict=True):
        if kind is None:
            table = table.add_column(name, [None] * len(table), feature=shared)
        filled.append(table if kind in (None, shared) else table.cast_column(name, shared))
    return filled


def _join(tables: Sequence[Dataset], split_by: str) -> Dataset:
    renamed = []
    for idx, table in enumerate(map(_cast_fixed, tables)):
        ids = [f"{idx}/{conv_id}" for conv_id in table["conv_id"]]
        renamed.append(table.remove_columns("conv_id").add_column("conv_id", ids))
    for name in renamed[0].column_names:
        renamed = _share_keys(renamed, name)
    for name in dict.fromkeys(("single_turn_prompt", split_by, split_by.partition(".")[0])):
        renamed = _keep_tasks(renamed, name)
    first = renamed[0].features
    shared = [c for c in first if all(t.features.get(c) == first[c] for t in renamed)]
    dropped = sorted({c for table in renamed for c in table.column_names} - set(shared))
    if dropped:
        logger.info("Columns that not all datasets have, left out: %s.", ", ".join(dropped))
    return concatenate_datasets([table.select_columns(shared) for table in renamed])


def weigh_rows(rows: Dataset, weights: Sequence[float] | None) -> Dataset:
    """Repeat the rows of each joined dataset by its weight; a share is chosen by `conv_id`.

    Args:
        rows: Converted training rows of `load_rows`.
        weights: One for each dataset, or None for rows as they are.
    """
    if not weights or len(weights) == 1:
        return rows
    chosen = []
    for idx, conv_id in enumerate(rows["conv_id"]):
        weight = weights[int(conv_id.partition("/")[0])]
        digest = hashlib.sha256(conv_id.encode()).digest()
        extra = int.from_bytes(digest[:8], "big") / 2**64 < weight % 1
        chosen += [idx] * (int(weight) + extra)
    return rows.select(chosen)


def conversion(settings: Any) -> dict[str, Any]:
    """Return the arguments that the conversions to SFT and DPO rows share."""
    return {
        "eval_ratio": settings.eval_ratio,
        "system_prompt": settings.system_prompt,
        "score_column": settings.score_column,
        "split_by": settings.split_by,
    }


def take_evenly(rows: Dataset, limit: int) -> Dataset:
    """Take at most `limit` rows, spread evenly over all of them."""
    if len(rows) <= limit:
        return rows
    return rows.select(np.linspace(0, len(rows) - 1, limit).astype(int))
