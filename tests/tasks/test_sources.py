"""Tasks from other people's datasets, on small files of the same shape."""

import json

import pytest
from datasets import Dataset, DatasetDict

from collabllm.tasks import load_tasks

MATH = [
    {"problem": "1+1?", "level": "Level 1", "type": "Algebra", "solution": "\\boxed{2}"},
    {"problem": "hard?", "level": "Level 5", "type": "Algebra", "solution": "So \\boxed{7}."},
]
BIGCODEBENCH = [
    {
        "task_id": "BigCodeBench/0",
        "complete_prompt": "def task_func():",
        "instruct_prompt": "Write a function.",
        "canonical_solution": "    return 1",
        "code_prompt": "def task_func():",
        "test": "class TestCases: ...",
        "entry_point": "task_func",
        "libs": "[]",
    }
]
MEDIUM = [{"title": "On Tea", "text": "Tea is warm.", "url": "u", "authors": "[]", "tags": "[]"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_math_gives_its_hardest_level(tmp_path):
    (task,) = load_tasks(write(tmp_path / "math.jsonl", MATH))

    assert (task.single_turn_prompt, task.single_turn_completion) == ("hard?", "So \\boxed{7}.")
    assert task.metadata == {"type": "Algebra", "level": "Level 5"}


def test_bigcodebench_brings_its_tests(tmp_path):
    (task,) = load_tasks(write(tmp_path / "code.jsonl", BIGCODEBENCH))

    assert task.task_id == "BigCodeBench/0"
    assert task.metadata == {"test": "class TestCases: ...", "entry_point": "task_func"}


def test_medium_articles_are_references_of_documents(tmp_path):
    (task,) = load_tasks(write(tmp_path / "medium.jsonl", MEDIUM))

    assert task.single_turn_completion == "Tea is warm."
    assert "On Tea" in task.single_turn_prompt


def test_saved_folders_and_parquet_files_load_and_the_limit_stops_early(tmp_path):
    rows = [{"single_turn_prompt": f"goal {i}"} for i in range(9)]
    Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    DatasetDict({"test": Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")

    assert len(load_tasks(tmp_path / "t.parquet", 4)) == 4
    assert len(load_tasks(tmp_path / "saved", split="test")) == 9


def test_a_column_map_names_the_columns_of_any_dataset(tmp_path):
    file = write(tmp_path / "qa.jsonl", [{"question": "Why?", "answer": "Because."}])
    columns = {"single_turn_prompt": "question", "single_turn_completion": "answer"}

    (task,) = load_tasks(file, columns=columns)

    assert (task.single_turn_prompt, task.single_turn_completion) == ("Why?", "Because.")
    with pytest.raises(ValueError, match="has no column q; it has question, answer"):
        load_tasks(file, columns={"single_turn_prompt": "q"})
    with pytest.raises(ValueError, match=r"row 1: 'single_turn_prompt' must be|line 1: 'single"):
        load_tasks(file)
