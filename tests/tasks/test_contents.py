"""Hashes of the files that a run reads: other content, another hash, whatever lies beside it."""

from datasets import Dataset

from collabllm.tasks.contents import hash_files


def test_only_what_is_read_counts(tmp_path):
    build, saved = tmp_path / "build", tmp_path / "saved"
    build.mkdir()
    for split, text in (("train", "a"), ("eval", "b")):
        (build / f"{split}.jsonl").write_text(text)
    Dataset.from_list([{"x": 1}]).save_to_disk(saved)
    before = {place: hash_files(place) for place in (build, saved)}

    (build / "conversations.html").write_text("a page of the rows")
    (saved / "state.json").write_text("{}")
    assert {place: hash_files(place) for place in (build, saved)} == before
    assert hash_files(build / "train.jsonl") == before[build] != hash_files(build, "eval")

    (build / "train.jsonl").write_text("c")
    Dataset.from_list([{"x": 2}]).save_to_disk(saved)
    assert all(hash_files(place) != before[place] for place in (build, saved))


def test_what_lies_elsewhere_has_no_hash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert hash_files("demo") == hash_files("user/repository") == hash_files(tmp_path) == ""
