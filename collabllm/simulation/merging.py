"""Put the parts of a run together: one file of conversations or rows, one header, one sum."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from collabllm.files import (
    JsonLinesWriter,
    read_json_lines,
    read_json_object,
    sort_json_lines,
    write_text,
)
from collabllm.provenance import refuse_changes
from collabllm.simulation.shards import Shard, to_shard


class _Simulation:
    """A file of conversations, one a line."""

    file, header = "transcripts.jsonl", "transcripts.run.json"

    def identity(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return record["task_id"], record["rollout_idx"]

    def conversation(self, record: Mapping[str, Any]) -> tuple[str, int]:
        return record["task_id"], record["rollout_idx"]

    def is_end(self, record: Mapping[str, Any]) -> bool:
        return True

    def sort(self, file: Path) -> None:
        """Leave conversations in the order of the parts."""


class _Build:
    """A file of candidate replies, several lines per conversation."""

    file, header = "train.jsonl", "build.json"

    def identity(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return record["conv_id"], record["turn_id"], record["candidate_idx"]

    def conversation(self, record: Mapping[str, Any]) -> tuple[str, int]:
        return record["conv_id"], 0

    def is_end(self, record: Mapping[str, Any]) -> bool:
        return bool(record["chosen"] and record["termination_reason"])

    def sort(self, file: Path) -> None:
        """Sort as a build does in its end."""
        sort_json_lines(file, ("conv_id", "turn_id", "candidate_idx"))


_Kind = _Simulation | _Build
_KINDS: tuple[_Kind, ...] = (_Simulation(), _Build())


@dataclass
class _Part:
    folder: Path
    header: dict[str, Any]
    shard: Shard


def merge_runs(folders: Sequence[str | Path], output_dir: str | Path) -> Path:
    """Merge all parts of a run that was done with `--shard I/N`.

    Args:
        folders: Folders of the parts, in any order; simulations or builds.
        output_dir: Folder to write to; must be new. The merged file is there once it is whole.

    Returns:
        The merged file.

    Raises:
        FileExistsError: If there is a merged file.
        FileNotFoundError: If a folder holds no run.
        ValueError: If parts are missing, double or unfinished, hold what belongs to another part,
            were made with other settings, or a header is damaged.
    """
    kind = _kind_of(Path(folders[0]))
    output = Path(output_dir) / kind.file
    if output.exists():
        raise FileExistsError(f"{output} exists; choose another --output_dir.")
    parts = [_read_part(Path(folder), kind.header) for folder in folders]
    _check_parts(parts)
    for part in parts:
        _check_lines(part, kind)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".merging-", dir=output.parent) as scratch_folder:
        scratch = Path(scratch_folder) / f".{kind.file}"  # a view of the folder passes it over
        with JsonLinesWriter(scratch) as writer:
            for part in parts:
                for record in read_json_lines(part.folder / kind.file):
                    if not record.get("failed"):
                        writer.write(record)
        kind.sort(scratch)
        write_text(output.with_name(kind.header), json.dumps(_sum(parts), indent=1) + "\n")
        scratch.replace(output)
    return output


def _kind_of(folder: Path) -> _Kind:
    for kind in _KINDS:
        if (folder / kind.file).is_file():
            return kind
    names = " or ".join(kind.file for kind in _KINDS)
    raise FileNotFoundError(f"{folder} holds no {names}.")


def _read_part(folder: Path, header_name: str) -> _Part:
    file = folder / header_name
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; a part is the whole output folder of a run.")
    header = read_json_object(file)
    shard = header["settings"].get("shard")
    if shard is None:
        raise ValueError(f"{folder} is a whole run, not a part: it was made without --shard.")
    return _Part(folder, header, to_shard(shard))


def _check_parts(parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        try:
            refuse_changes(first.header["settings"], part.header["settings"], ["shard"])
            before, now = (one.header.get("contents", {}) for one in (first, part))
            refuse_changes(before, now, what="the content of ")
        except ValueError as error:
            text = str(error).removeprefix("--resume: ").partition(";")[0]
            raise ValueError(f"{first.folder} and {part.folder} differ: {text}.") from None
        if part.shard.num_shards != first.shard.num_shards:
            raise ValueError(
                f"{first.folder} is part {first.shard}, {part.folder} is part {part.shard}."
            )
        wholes = first.header.get("whole_run"), part.header.get("whole_run")
        if wholes[0] != wholes[1]:
            raise ValueError(
                f"{first.folder} is a part of {wholes[0]}, {part.folder} of {wholes[1]}: the "
                "tasks, --num_tasks or --num_rollouts differ."
            )
        versions = first.header.get("versions"), part.header.get("versions")
        if versions[0] != versions[1]:
            raise ValueError(f"{first.folder} and {part.folder} were made by other versions.")
    counts = Counter(part.shard.index for part in parts)
    wanted = range(1, first.shard.num_shards + 1)
    missing = [f"{i}/{first.shard.num_shards}" for i in wanted if not counts[i]]
    double = [f"{i}/{first.shard.num_shards}" for i, n in counts.items() if n > 1]
    if missing or double:
        told = [f"missing: {', '.join(missing)}"] * bool(missing)
        told += [f"given twice: {', '.join(double)}"] * bool(double)
        raise ValueError(f"Not the parts of one run ({'; '.join(told)}).")


def _check_lines(part: _Part, kind: _Kind) -> None:
    seen: set[tuple[Any, ...]] = set()
    ended: set[tuple[str, int]] = set()
    for number, record in enumerate(read_json_lines(part.folder / kind.file), 1):
        if record.get("failed"):
            continue  # counted as not done
        where = f"{part.folder / kind.file} line {number}"
        conversation, identity = kind.conversation(record), kind.identity(record)
        if conversation not in part.shard:
            raise ValueError(f"{where}: {conversation} is not in {part.shard}.")
        if identity in seen:
            raise ValueError(f"{where}: {identity} is there twice.")
        seen.add(identity)
        if kind.is_end(record):
            ended.add(conversation)
    num_wanted = part.header["num_wanted"]
    if len(ended) < num_wanted:
        raise ValueError(
            f"{part.folder} is not finished: {len(ended)} of {num_wanted} are done; go on with "
            "--resume there."
        )


def _sum(parts: Sequence[_Part]) -> dict[str, Any]:
    """Return the header of the whole: what is equal, and the sum of what was used."""
    whole = dict(parts[0].header)
    whole["settings"] = {**whole["settings"], "shard": None}
    for name in ("spent_usd", "num_wanted"):
        whole[name] = sum(part.header.get(name, 0) for part in parts)
    lost: Counter[str] = Counter()
    usage: list[Any] = []
    for part in parts:
        lost.update(part.header.get("lost", {}))
        usage += part.header.get("usage", [])
    whole |= {"lost": dict(lost)} if lost else {}
    whole |= {"usage": usage} if usage else {}
    whole["merged"] = [{"folder": str(p.folder), "shard": str(p.shard)} for p in parts]
    return whole
