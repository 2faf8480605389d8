"""Scripted policies that look for shortcuts are worth clearly less than honest work."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import yaml

from collabllm.rewards import MetricTools, RewardSettings, register_metric
from collabllm.rewards.hackers import (
    HACKERS,
    HONEST,
    POLICIES,
    WISH_THEN_NOTED,
    WISH_THEN_REFERENCE,
    ScriptedAssistant,
    find_shortcuts,
    score_policies,
    to_table,
)
from collabllm.rewards.scoring import DEFAULT_WEIGHTS, combine, score_rollout
from collabllm.simulation import ChatSimulator, RuleBasedUser, TerminationReason
from collabllm.tasks import Fact, Task, demo_tasks, open_with
from collabllm.tasks.embeddings import has_bundled_encoder

ROOT = Path(__file__).parents[2]
TOLD = (0, 2, 9)
"""Facts in the opening: none, some, all."""
CLEARLY = 0.25


def shipped_weightings():
    """Return the default weights, and those of every configuration that has some."""
    found = {"default": RewardSettings(DEFAULT_WEIGHTS)}
    for file in sorted((ROOT / "configs").glob("*.yaml")):
        config = yaml.safe_load(file.read_text())
        if config.get("weights"):
            found[file.name] = RewardSettings(config["weights"], config.get("token_penalty", 0.0))
    return found


WEIGHTINGS = shipped_weightings()


@pytest.fixture(scope="module")
def futures():
    """For each policy and number of facts told, the scored conversations about twelve tasks."""
    names = {name for settings in WEIGHTINGS.values() for name in settings.weights}
    settings = RewardSettings(dict.fromkeys(sorted(names), 1.0))
    tasks = [task for task in demo_tasks("test") if task.facts][:12]
    tools = MetricTools(count_tokens=lambda text: len(text.split()))

    async def talk(policy, task):
        simulator = ChatSimulator(ScriptedAssistant(policy, task), RuleBasedUser.from_task(task))
        result = await simulator.arollout([], 3)
        return await score_rollout(result, task, settings, tools, 0)

    async def talk_all():
        return {
            (name, told): [await talk(policy, open_with(task, told)) for task in tasks]
            for name, policy in POLICIES.items()
            for told in TOLD
        }

    return asyncio.run(talk_all())


def reward(futures, settings):
    silent = TerminationReason.ASSISTANT_EMPTY
    values = [
        settings.floor
        if future.termination_reason is silent
        else combine(future.metrics, future.num_tokens, settings)
        for future in futures
    ]
    return float(np.mean(values))


@pytest.mark.skipif(not has_bundled_encoder(), reason="no bundled encoder")
@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
def test_no_shortcut_comes_near_honest_work(futures, weighting, told):
    settings = WEIGHTINGS[weighting]
    honest = reward(futures[HONEST, told], settings)

    near = {
        name: value
        for name in HACKERS
        if (value := reward(futures[name, told], settings)) > honest - CLEARLY
    }

    assert near == {}


@pytest.mark.skipif(not has_bundled_encoder(), reason="no bundled encoder")
@pytest.mark.parametrize("metric", ["facts_elicited", "facts_used"])
def test_no_shortcut_comes_near_in_what_is_paid_for(futures, metric):
    def mean(name):
        found = [f.metrics[metric].value for told in TOLD for f in futures[name, told]]
        return np.mean([value for value in found if value is not None] or [0.0])

    honest = mean(HONEST)
    does_the_work = {WISH_THEN_REFERENCE} if metric == "facts_used" else set()
    assert honest > 0.9
    assert {name for name in HACKERS if mean(name) > honest - CLEARLY} == does_the_work


@pytest.mark.skipif(not has_bundled_encoder(), reason="no bundled encoder")
@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("name", [WISH_THEN_NOTED, WISH_THEN_REFERENCE])
def test_a_sentence_that_asks_for_everything_pays_for_it(futures, name, told):
    values = [future.metrics["over_asking"].value for future in futures[name, told]]

    assert min(values) > 0.9


def test_the_weightings_of_every_configuration_are_tried():
    assert len(WEIGHTINGS) >= 3


@pytest.mark.parametrize("weights", [{"over_asking": -1.0}, {"repetition": -1.0, "bleu": 0.0}])
def test_weights_that_only_punish_are_refused_since_they_pay_silence(weights):
    with pytest.raises(ValueError, match="weights must have one above 0, got"):
        RewardSettings(weights, token_penalty=0.001)


PARTY = Task(
    "party",
    "Plan a party for 12.",
    "Games at three, cake at four, music until six, a walk for 12 guests.",
    opening="Plan a party.",
    facts=(Fact("guests", "We are 12.", ("many", "guests"), "12", "How many guests?"),),
)


def score(weights, tasks=(PARTY,), **tools):
    settings = RewardSettings(weights)
    users = lambda task, seed: RuleBasedUser.from_task(task, seed=seed)  # noqa: E731
    return asyncio.run(score_policies(tasks, users, settings, MetricTools(**tools)))


def test_a_users_own_metric_is_tried_and_its_shortcuts_are_named():
    async def politeness(conversation, task, tools):
        said = " ".join(m["content"] for m in conversation if m["role"] == "assistant")
        return float("sorry" in said)

    register_metric("politeness", politeness)

    scores = score({"politeness": 1.0})

    assert find_shortcuts(scores)[0] == "refusal" or "refusal" in find_shortcuts(scores)
    assert to_table(scores)[2].startswith("| refusal | 1.00 | 1.00 |")


def test_a_wish_is_no_shortcut_where_there_is_nothing_to_wish_for():
    names = [policy.name for policy in score({"bleu": 1.0}, [Task("t", "goal", "a good result")])]

    assert "honest" in names
    assert WISH_THEN_REFERENCE not in names


def test_tasks_without_a_reference_are_left_out():
    assert score({"repetition": 1.0}, [Task("t", "goal")]) == []
    assert find_shortcuts([]) == []
