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
    check_applicable(["facts_used", "repetition"], BARE)

    assert "which facts_used needs" in caplog.text


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("bleu", "reference, which bleu needs"),
        ("document->chrf", "reference, which document->chrf needs"),
        ("accuracy", "reference, which accuracy needs"),
        ("accuracy_judged", "reference, which accuracy_judged needs"),
        ("code->pass_rate", "tests, which code->pass_rate needs"),
    ],
)
def test_metrics_that_need_what_no_task_has_are_refused(name, what):
    with pytest.raises(ValueError, match=f"None of the 2 tasks has {what}"):
        check_applicable([name], BARE)
    with pytest.raises(ValueError, match=f"has facts, which over_asking needs.* {what}"):
        check_applicable([name, "over_asking"], BARE)


def test_a_build_rewarded_by_references_that_are_not_there_does_no_work(tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"single_turn_prompt": "goal"}\n')

    with pytest.raises(ValueError, match="single_turn_completion"):
        build_dataset(tasks=str(file), weights={"bleu": 1}, output_dir=str(tmp_path / "data"))

    assert not (tmp_path / "data").exists()


def test_tasks_of_which_nothing_can_be_said_are_told(caplog):
    with_reference = Task("c", "goal", "a good result")

    check_applicable(["bleu"], [*BARE, with_reference], alone=True)
    assert "2 of 3 tasks, for example a, lack what bleu need" in caplog.text

    caplog.clear()
    check_applicable(["bleu", "repetition"], [*BARE, with_reference], alone=True)
    check_applicable(["bleu"], [with_reference], alone=True)
    check_applicable(["bleu"], [*BARE, with_reference])  # an evaluation: asking is measured there
    assert not caplog.records


def test_a_metric_of_ones_own_says_that_it_needs_facts():
    async def own(conversation, task, tools):
        return len(task.facts)

    register_metric("own", own, needs={"facts"})

    with pytest.raises(ValueError, match="None of the 2 tasks has facts, which own needs"):
        check_applicable(["own"], BARE)


def test_a_task_with_facts_is_enough(caplog):
    check_applicable(["facts_used"], [Task("c", "goal", facts=(Fact("x", "y"),))])
    check_applicable([], BARE)

    assert not caplog.records
