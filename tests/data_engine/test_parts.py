"""Parts of a build: merged they are the whole build; an unfinished part is refused."""

import json

import pytest

from collabllm.simulation import merging
from collabllm.simulation.merging import merge_runs
from scripts.build_dataset import main as build_script
from scripts.merge_runs import main as merge_script
from tests.fake_server import FakeServer, user_json


def answer(body):
    """Play assistant and user."""
    if body["model"] == "user":
        return user_json(f"message {body['messages'][0]['content'].count('role')}")
    return f"reply {body.get('seed', 0) % 1000} to {len(body['messages'])}"


def flags(server, folder, *extra):
    words = f"--assistant_model assistant --assistant_base_url {server.url} --user openai "
    words += f"--user_model user --user_base_url {server.url} --tasks demo --num_tasks 6 "
    words += f"--num_candidates 2 --num_samples 1 --window 1 --max_turns 2 --output_dir {folder}"
    return [*words.split(), "--weights", '{"repetition": 1.0}', *extra]


def read(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def _merge(folders, output):
    merge_script(["--runs", *map(str, folders), "--output_dir", str(output)])


def test_two_parts_of_a_build_are_the_whole_build(tmp_path):
    with FakeServer(answer) as server:
        prices = ("--prices", '{"user": [1000, 1000], "assistant": [0, 0]}')
        build_script(flags(server, tmp_path / "whole"))
        parts = [tmp_path / "part1", tmp_path / "part2"]
        for number, folder in enumerate(parts, 1):
            build_script(flags(server, folder, "--shard", f"{number}/2", *prices))
        _merge(parts[::-1], tmp_path / "merged")

        assert read(tmp_path / "merged") == read(tmp_path / "whole")
        assert all(read(folder) for folder in parts)
        spent = [json.loads((f / "build.json").read_text())["spent_usd"] for f in parts]
        header = json.loads((tmp_path / "merged/build.json").read_text())
        assert min(spent) > 0
        assert header["spent_usd"] == pytest.approx(sum(spent))
        assert (header["num_wanted"], header["settings"]["shard"]) == (6, None)

        asked = len(server.requests)
        build_script(flags(server, tmp_path / "merged", "--resume"))
        preflights = 2  # assistant and user; no conversation is left to do
        assert len(server.requests) == asked + preflights
        assert "6 conversations" in (tmp_path / "merged/README.md").read_text()


def test_a_part_without_facts_is_built_where_other_parts_have_some(tmp_path):
    tasks = [{"task_id": "a", "single_turn_prompt": "Name a fruit."}]
    fact = {"name": "guests", "answer": "We are 12.", "value": "12", "question": "How many?"}
    tasks += [{"task_id": "b", "single_turn_prompt": "A party for 12.", "facts": [fact]}]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    weights = ("--weights", '{"facts_elicited": 1, "over_asking": -1}')
    given = ("--tasks", str(tmp_path / "tasks.jsonl"), "--user", "sharded", *weights)
    with FakeServer(answer) as server:
        for number in (1, 2):
            part = ("--shard", f"{number}/2", *given)
            build_script(flags(server, tmp_path / f"part{number}", *part))
        _merge([tmp_path / "part1", tmp_path / "part2"], tmp_path / "merged")

    assert {row["single_turn_prompt"] for row in read(tmp_path / "merged")} == {
        "Name a fruit.", "A party for 12.",
    }  # fmt: skip


def _write_part(folder, rows, shard):
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    header = {"settings": {"shard": shard}, "num_wanted": 1}
    (folder / "build.json").write_text(json.dumps(header))
    return folder


def _row(turn_id, candidate_idx, ending=""):
    return {
        "conv_id": "a",
        "turn_id": turn_id,
        "candidate_idx": candidate_idx,
        "chosen": candidate_idx == 0,
        "termination_reason": ending,
    }


def test_a_conversation_that_was_killed_in_the_middle_is_not_done(tmp_path):
    rows = [_row(1, 0), _row(1, 1)]
    with pytest.raises(ValueError, match="0 of 1 are done; go on with --resume"):
        _merge([_write_part(tmp_path / "killed", rows, "1/1")], tmp_path / "x")

    rows += [_row(3, 0, "max_turns"), _row(3, 1)]
    _merge([_write_part(tmp_path / "ended", rows, "1/1")], tmp_path / "merged")
    assert read(tmp_path / "merged") == rows

    double = _write_part(tmp_path / "double", [*rows, rows[1]], "1/1")
    with pytest.raises(ValueError, match=r"line 5: \('a', 1, 1\) is there twice"):
        _merge([double], tmp_path / "y")


def _write_two_parts(folder):
    """Write a build of two conversations in two parts; return their folders."""
    rows = [[{**_row(1, 0, "max_turns"), "conv_id": name}] for name in ("0", "2")]
    return [_write_part(folder / f"p{i}", rows[i - 1], f"{i}/2") for i in (1, 2)]


def test_a_merge_that_fails_leaves_no_dataset_and_can_be_done_again(tmp_path, monkeypatch):
    parts = _write_two_parts(tmp_path)

    def fill_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(merging, "sort_json_lines", fill_disk)
        with pytest.raises(OSError, match="No space left"):
            merge_runs(parts, tmp_path / "merged")
    assert not list((tmp_path / "merged").iterdir())

    merge_runs(parts, tmp_path / "merged")

    assert [row["conv_id"] for row in read(tmp_path / "merged")] == ["0", "2"]
    assert {file.name for file in (tmp_path / "merged").iterdir()} == {"train.jsonl", "build.json"}


def test_a_merged_file_is_not_written_over(tmp_path):
    parts = _write_two_parts(tmp_path)
    merged = merge_runs(parts, tmp_path / "merged")
    before = merged.read_text()

    with pytest.raises(FileExistsError, match=r"train\.jsonl exists; .* another --output_dir"):
        merge_runs(parts, tmp_path / "merged")

    assert merged.read_text() == before


@pytest.mark.parametrize(
    ("text", "told"),
    [('{"settings": ', "is damaged, not JSON"), ("[1]", "a JSON object, got list")],
)
def test_a_part_with_a_damaged_header_is_named(tmp_path, text, told):
    parts = _write_two_parts(tmp_path)
    (parts[1] / "build.json").write_text(text)

    with pytest.raises(ValueError, match=rf"p2/build\.json: .*{told}"):
        merge_runs(parts, tmp_path / "merged")
