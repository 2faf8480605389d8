"""Parts of a run: each conversation in one of them, and together the whole run."""

import json
import re

import pytest

from collabllm.simulation.merging import merge_runs
from collabllm.simulation.shards import Shard, to_shard
from scripts.merge_runs import main as merge_script
from scripts.simulate_chats import main as simulate_script
from tests.fake_server import FakeServer

KEYS = [(f"task {n}", rollout) for n in range(500) for rollout in range(2)]


@pytest.mark.parametrize("num_shards", [1, 2, 7, 64])
def test_each_conversation_is_in_one_part_and_parts_are_of_a_size(num_shards):
    shards = [Shard(i + 1, num_shards) for i in range(num_shards)]

    assert all(sum(key in shard for shard in shards) == 1 for key in KEYS)
    sizes = [sum(key in shard for key in KEYS) for shard in shards]
    assert max(sizes) < 2.5 * len(KEYS) / num_shards


def test_a_part_is_the_same_on_every_machine():
    assert [n for n in range(12) if (f"task {n}", 0) in Shard(1, 3)] == [3, 6]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_part_that_is_not_there_is_refused(text):
    with pytest.raises(ValueError, match="shard must be I/N"):
        to_shard(text)


@pytest.fixture
def parts(tmp_path):
    """Simulate a run whole, and in three parts one after the other, as an array of jobs would."""

    def simulate(folder, *extra):
        words = f"--assistant_base_url {server.url} --assistant_model a --num_tasks 5 "
        words += f"--num_rollouts 2 --max_turns 1 --output_dir {tmp_path / folder}"
        simulate_script([*words.split(), *extra])
        return tmp_path / folder

    with FakeServer(lambda body: "What is it for?") as server:
        whole = simulate("whole")
        yield whole, [simulate(f"part{i}", "--shard", f"{i}/3") for i in (1, 2, 3)], simulate


def _keys(file):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted((line["task_id"], line["rollout_idx"]) for line in lines)


def test_three_parts_are_the_whole_run(parts, tmp_path, capsys):
    whole, (one, two, three), simulate = parts
    merge_script(["--runs", str(two), str(one), str(three), "--output_dir", str(tmp_path / "m")])

    assert _keys(tmp_path / "m/transcripts.jsonl") == _keys(whole / "transcripts.jsonl")
    header = json.loads((tmp_path / "m/transcripts.run.json").read_text())
    assert header["settings"]["shard"] is None
    assert header["num_wanted"] == 10
    assert [part["shard"] for part in header["merged"]] == ["2/3", "1/3", "3/3"]

    simulate("m", "--resume")  # the merged run is a run: nothing is left to do
    assert len(_keys(tmp_path / "m/transcripts.jsonl")) == 10

    with pytest.raises(ValueError, match=r"missing: 3/3"):
        merge_runs([one, two], tmp_path / "x")
    with pytest.raises(ValueError, match=r"missing: 2/3; given twice: 1/3"):
        merge_runs([one, three, one], tmp_path / "x")
    with pytest.raises(ValueError, match="not a part"):
        merge_runs([whole, one], tmp_path / "x")
    with pytest.raises(FileExistsError):
        merge_runs([one, two, three], tmp_path / "m")


def test_unfinished_foreign_and_differing_parts_are_refused(parts, tmp_path):
    _, (one, two, three), simulate = parts
    other = simulate("other", "--shard", "3/3", "--max_turns", "2")
    with pytest.raises(ValueError, match="max_turns was 1 and is 2"):
        merge_runs([one, two, other], tmp_path / "x")

    longer = simulate("longer", "--shard", "3/3", "--num_rollouts", "3")
    with pytest.raises(ValueError, match=r"of 10 conversations .*longer of 15 conversations"):
        merge_runs([one, two, longer], tmp_path / "x")

    header = json.loads((three / "transcripts.run.json").read_text())
    task = next(iter(header["contents"]))
    edited = {**header, "contents": {**header["contents"], task: "edited"}}
    (three / "transcripts.run.json").write_text(json.dumps(edited))
    with pytest.raises(ValueError, match=rf"differ: the content of {re.escape(task)} was"):
        merge_runs([one, two, three], tmp_path / "x")
    (three / "transcripts.run.json").write_text(json.dumps(header))

    lines = (one / "transcripts.jsonl").read_text().splitlines(keepends=True)
    (one / "transcripts.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match=rf"{len(lines) - 1} of {len(lines)} are done"):
        merge_runs([one, two, three], tmp_path / "y")

    (one / "transcripts.jsonl").write_text("".join([*lines, lines[0]]))
    with pytest.raises(ValueError, match="is there twice"):
        merge_runs([one, two, three], tmp_path / "z")

    foreign = (two / "transcripts.jsonl").read_text().splitlines(keepends=True)[0]
    (one / "transcripts.jsonl").write_text("".join([*lines, foreign]))
    with pytest.raises(ValueError, match="is not in 1/3"):
        merge_runs([one, two, three], tmp_path / "w")
