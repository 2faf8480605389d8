"""Users and assistants by name, from a flag, a file or Python; kinds of one's own."""

from dataclasses import replace

import pytest

from collabllm.simulation import (
    Assistant,
    AssistantReply,
    OpenAIClient,
    UserModel,
    UserTurnResult,
    simulate_chats,
)
from collabllm.simulation.assistant import registry as assistants
from collabllm.simulation.assistant.settings import AssistantSettings
from collabllm.simulation.settings import UserSettings
from collabllm.simulation.user_models import registry as users
from collabllm.simulation.user_models.personas import GROUPS
from collabllm.simulation.user_models.registry import UserSpec, to_user_spec
from collabllm.tasks import Fact, Opening, Task, demo_tasks, open_with
from tests.fake_server import FakeServer, user_json


def test_a_user_is_a_kind_words_or_a_mapping():
    assert to_user_spec("openai") == UserSpec("openai", "openai")
    assert to_user_spec("name=hasty,patience=1,one_at_a_time=true") == UserSpec(
        "hasty", "sharded", {"patience": 1, "one_at_a_time": True}
    )
    assert to_user_spec("kind=rule_based,patience=3") == UserSpec(
        "rule_based", "rule_based", {"patience": 3}
    )
    given = {"kind": "openai", "traits": ["terse", "expert"], "model": "m"}
    assert to_user_spec(given).options == {"traits": ("terse", "expert"), "model": "m"}
    assert given == {"kind": "openai", "traits": ["terse", "expert"], "model": "m"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("robot", "there is no kind 'robot'; known: native, openai, rule_based, sharded"),
        ("kind=robot", "there is no kind 'robot'; known: native, openai, rule_based, sharded"),
        ("patence=3", "patence is not known; did you mean patience"),
        ("patience=soon", "patience must be int, got 'soon'"),
        ("one_at_a_time=maybe", "one_at_a_time must be bool, got 'maybe'"),
        ("kind=openai,traits=evil", "Unknown traits"),
    ],
)
def test_a_wrong_user_is_named_with_what_it_may_be(wrong, why):
    with pytest.raises(ValueError, match=why):
        to_user_spec(wrong)


def test_flags_of_the_language_model_are_defaults_of_its_kind():
    by_flags = UserSettings(user="openai", user_model="m", num_traits=2)
    by_words = UserSettings(user="kind=openai,model=n", user_model="m")

    assert by_flags.to_user_spec().options["model"] == "m"
    assert by_flags.to_user_spec().options["num_traits"] == 2
    assert by_words.to_user_spec().options["model"] == "n"
    assert UserSettings(user_model="m").to_user_spec().options == {}


@pytest.mark.parametrize(
    ("words", "number"), [("", 2), (",num_traits=1", 3), (",vary=false", 0), (",traits=polite", 1)]
)
def test_users_of_a_language_model_differ_in_what_they_know_and_write(words, number):
    clients = OpenAIClient("http://127.0.0.1:9/v1", "k")
    make = to_user_spec(f"kind=openai{words}").build_factory(lambda base_url: clients)

    personas = [make(demo_tasks()[0], seed).persona.traits for seed in range(40)]

    assert {len(traits) for traits in personas} == {number}
    assert personas == [make(demo_tasks()[0], seed).persona.traits for seed in range(40)]
    if number > 1:
        assert all(set(traits) & set(GROUPS["verbosity"]) for traits in personas)
        assert all(set(traits) & set(GROUPS["knowledge"]) for traits in personas)


def test_patience_and_single_answers_reach_the_user():
    task = next(task for task in demo_tasks() if len(task.facts) > 1)
    make = to_user_spec("patience=1,one_at_a_time=true").build_factory(lambda base_url: None)

    user = make(task, 0)

    assert (user.patience, user.answers_several) == (1, False)


def test_the_assistant_is_found_by_its_kind():
    assert AssistantSettings().assistant_kind == "local"
    assert AssistantSettings(assistant_model="m").assistant_kind == "openai"
    assert AssistantSettings(assistant="vllm").assistant_kind == "vllm"
    with pytest.raises(ValueError, match="one of auto, local, openai, ray, vllm, got 'lokal'"):
        AssistantSettings(assistant="lokal")


class Parrot(Assistant):
    async def agenerate(self, messages, *, seed=None):
        return AssistantReply(messages[-1]["content"])


class Stubborn(UserModel):
    async def agenerate(self, messages, *, seed=None):
        return UserTurnResult(f"No. {len(messages)}")


def test_a_kind_of_ones_own_is_one_function(monkeypatch, tmp_path):
    monkeypatch.setattr(users, "_KINDS", dict(users._KINDS))
    monkeypatch.setattr(assistants, "_KINDS", dict(assistants._KINDS))
    assistants.assistant_kind("parrot")(lambda settings, session: Parrot())

    @users.user_kind("stubborn")
    def stubborn(clients, *, tone: str = ""):
        return lambda task, seed: Stubborn(task.task_desc, tone or task.single_turn_prompt)

    (record,) = simulate_chats(
        assistant="parrot",
        user="kind=stubborn,tone=loud",
        num_tasks=1,
        max_turns=2,
        system_prompt="",
        output_dir=str(tmp_path),
    )

    assert [m["content"] for m in record.result.messages] == ["No. 0", "No. 0", "No. 2", "No. 2"]


@pytest.mark.parametrize("kind", ["openai", "native"])
def test_a_user_played_by_a_model_begins_with_an_opening_that_tells_facts(kind):
    answers = {"openai": user_json("hello"), "native": "hello"}
    facts = (Fact("who", "For Ann.", value="Ann"), Fact("when", "On Monday.", value="Monday"))
    written = Opening("a card for somebody whose name is Ann", ("who",))
    task = Task("t", "a card for Ann on Monday", opening="a card", facts=facts)
    tasks = [task, open_with(task, 2), open_with(replace(task, told_openings=(written,)), 1)]
    with FakeServer(lambda body: answers[kind]) as server:
        make_user = UserSpec(kind, kind).build_factory(lambda url: OpenAIClient(server.url, "k"))
        first = [make_user(task, 0).generate([]).response for task in tasks]
        system = make_user(tasks[1], 0).generate([{"role": "system", "content": "Be brief."}])
        second = make_user(tasks[1], 0).generate(
            [{"role": "user", "content": first[1]}, {"role": "assistant", "content": "Which?"}]
        )

    assert first[0] == "hello"
    assert first[1] == tasks[1].opening == system.response
    assert first[2] == written.text
    assert second.response == "hello"
    assert len(server.requests) == 2
