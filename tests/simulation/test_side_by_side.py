"""scripts/compare_chats.py: tasks drawn by the seed, both models with the same users."""

import pytest

from collabllm.simulation.assistant import Assistant, AssistantReply
from collabllm.simulation.assistant import registry as assistants
from collabllm.simulation.side_by_side import compare_chats, draw_tasks
from collabllm.tasks import demo_tasks
from scripts.compare_chats import main


class Says(Assistant):
    def __init__(self, text):
        self.text = text

    async def agenerate(self, messages, *, seed=None):
        return AssistantReply(self.text)


@pytest.fixture
def two_models(monkeypatch):
    monkeypatch.setattr(assistants, "_KINDS", dict(assistants._KINDS))
    assistants.assistant_kind("scripted")(
        lambda settings, session: Says("What for?" if settings.lora_path else "Here you are.")
    )


def test_the_seed_draws_the_tasks_and_every_second_one_opens_with_some_facts():
    tasks = demo_tasks("development")

    drawn = draw_tasks(tasks, 4, seed=1)

    assert draw_tasks(tasks, 4, seed=1) == drawn != draw_tasks(tasks, 4, seed=2)
    assert ["+" in task.task_id for task in drawn] == [False, True, False, True]
    with pytest.raises(ValueError, match="--num_shown 4: only 0 tasks have facts"):
        draw_tasks([task for task in tasks if not task.facts], 4, seed=1)


def test_both_conversations_of_a_task_are_printed_beside_each_other(two_models, capsys):
    main("--assistant scripted --lora_path x --tasks demo_development --seed 3".split())

    out = capsys.readouterr().out
    assert out.count("Held out: ") == 2
    line = next(line for line in out.splitlines() if "Here you are." in line)
    assert line.index("Here you are.") < line.index("What for?")


def test_an_adapter_is_needed(two_models):
    with pytest.raises(ValueError, match="--lora_path is missing"):
        compare_chats(assistant="scripted")


def test_the_conversations_are_drawn_into_a_file_that_needs_no_network(two_models, tmp_path):
    file = tmp_path / "new" / "talk.svg"

    main(f"--assistant scripted --lora_path x --tasks demo_development --svg {file}".split())

    svg = file.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "What&#160;for?" in svg
    assert "url(http" not in svg
    assert 'url("http' not in svg
