"""Metrics that no task can have are told before work."""

import pytest

from collabllm.data_engine.run import build_dataset
from collabllm.rewards import register_metric
from collabllm.rewards.applicable import check_applicable
from collabllm.tasks import Fact, Task

BARE = [Task("a", "goal"), Task("b", "other goal")]


def test_a_build_whose_every_score_would_be_null_stops_and_says_what_would_do(tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"single_turn_prompt": "goal"}\n')

    with pytest.raises(ValueError, match="None of the 1 tasks has facts, which facts_eli") as error:
        build_dataset(tasks=str(file), output_dir=str(tmp_path / "data"))

    assert '"answer": "We are 12."' in str(error.value)
    assert "--judge_model" in str(error.value)
    assert not (tmp_path / "data").exists()


def test_one_metric_of_several_is_a_warning(caplog):
    check_applicable(["facts_used", "bleu"], BARE)

    assert "which facts_used need" in caplog.text


def test_a_metric_of_ones_own_says_that_it_needs_facts():
    async def own(conversation, task, tools):
        return len(task.facts)

    register_metric("own", own, needs={"facts"})

    with pytest.raises(ValueError, match="None of the 2 tasks has facts, which own need"):
        check_applicable(["own"], BARE)


def test_a_task_with_facts_is_enough(caplog):
    check_applicable(["facts_used"], [*BARE, Task("c", "goal", facts=(Fact("x", "y"),))])
    check_applicable([], BARE)

    assert not caplog.records
