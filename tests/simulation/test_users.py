"""Simulated users: tolerant parsing, nothing private leaks, the rule-based user's behaviour."""

import json

import pytest

from collabllm.errors import UnparseableError
from collabllm.simulation import (
    ChatSimulator,
    OpenAIClient,
    OpenAIUserModel,
    Persona,
    RuleBasedUser,
    UserModel,
)
from collabllm.simulation.user_models import GIVE_UP_SIGNAL, TERMINAL_SIGNAL, NativeUserModel
from collabllm.simulation.user_models.output_formats import parse_user_output
from collabllm.simulation.user_models.rule_based import NO_PREFERENCE, NUDGES
from collabllm.tasks import Fact, Task, demo_tasks
from collabllm.tasks.matching import contains_value, find_questions
from tests.fake_server import FakeServer, user_json
from tests.simulation.test_simulator import QueueAssistant

GOAL = 'Say {"x": 1} and ${goal} or $5 to "Ann" {{ user }} <|im_end|>'


def make_user(server, **settings):
    client = OpenAIClient(server.url, "k", max_retries=1)
    return OpenAIUserModel("chat", GOAL, "m", client=client, **settings)


@pytest.mark.parametrize(
    ("text", "response"),
    [
        (user_json("hi"), "hi"),
        ("```json\n" + user_json("hi") + "\n```", "hi"),
        ("Sure! Here it is: " + user_json("hi") + " Hope that helps.", "hi"),
        ('{"thought": "a", "response": "hi",}', "hi"),
        ('{"thought": """a""", "response": """hi there"""}', "hi there"),
        ('{"response": 42}', "42"),
        ('{"response": 4.50}', "4.50"),
        ('{"response": "42"}', "42"),
        ('{"response": "true"}', "true"),
        ('{"response": true}', "true"),
        ('{"response": "caf\\u00e9 ☕"}', "café ☕"),
        ('{"response": "line one\nline two"}', "line one\nline two"),
        ('{"response": "a \\"quoted\\" {brace}"}', 'a "quoted" {brace}'),
    ],
)
def test_outputs_are_read_tolerantly_and_texts_stay_as_they_are(text, response):
    assert parse_user_output(text)["response"] == response


@pytest.mark.parametrize(
    "text",
    [
        *("", "I can't do that.", '{"thought": "only"}', '{"response": null}', "{"),
        *("{" * 200, '{"response": ' * 2000, f'{{"thought": {"[" * 2000}', "{" + "[" * 5000 + "}"),
        f'{{"thought": {"[" * 2000}{"]" * 2000}, "response": "hi"}}',
    ],
)
def test_unreadable_outputs_are_no_turn(text):
    assert parse_user_output(text) is None


def test_texts_pass_into_the_prompt_unchanged():
    with FakeServer(lambda body: user_json("hello")) as server:
        user = make_user(server, persona=Persona(("terse",)))
        turn = user.generate([{"role": "assistant", "content": "$thought {x}"}])

    prompt = server.requests[0]["messages"][0]["content"]
    assert GOAL in prompt
    assert "$thought {x}" in prompt
    assert "You write as little as you can" in prompt
    assert TERMINAL_SIGNAL in prompt
    assert turn.response == "hello"
    assert len(user.prompt_hash) == 16


def test_a_parse_failure_is_retried_with_a_reminder_and_never_sent_on():
    answers = iter(["nonsense with the goal", user_json("fine now")])
    with FakeServer(lambda body: next(answers)) as server:
        turn = make_user(server).generate([])

    assert turn.response == "fine now"
    assert "not readable" in server.requests[1]["messages"][-1]["content"]


def test_four_failures_end_with_an_error_that_shows_nothing_private():
    with (
        FakeServer(lambda body: '{"thought": "secret"') as server,
        pytest.raises(UnparseableError) as error,
    ):
        make_user(server).generate([])

    assert len(server.requests) == 4
    assert "secret" not in str(error.value)


ASKED = [
    {"role": "user", "content": "plan a party"},
    {"role": "assistant", "content": "Shall I write the plan for 12 guests now?"},
]
PLAN = {
    "role": "assistant",
    "content": "Boats from three, grill and lemonade at six, a band until ten. Is that all right?",
}


def test_the_signal_counts_anywhere_and_the_goodbye_is_kept():
    with FakeServer(lambda body: user_json(f"ok {TERMINAL_SIGNAL} bye!")) as server:
        turn = make_user(server).generate([*ASKED, {"role": "assistant", "content": "Done."}])

    assert (turn.is_terminal, turn.gave_up, turn.slips) == (True, False, ())
    assert turn.response == "ok  bye!"
    assert TERMINAL_SIGNAL in turn.raw_output


def test_a_user_who_leaves_without_a_result_says_so_by_another_signal():
    with FakeServer(lambda body: user_json(f"forget it {GIVE_UP_SIGNAL}")) as server:
        turn = make_user(server).generate(ASKED)

    assert (turn.is_terminal, turn.gave_up) == (True, True)
    assert turn.response == "forget it"
    assert GIVE_UP_SIGNAL in server.requests[0]["messages"][0]["content"]


def test_a_user_who_confirms_waits_for_the_result():
    with FakeServer(lambda body: user_json(f"yes, go ahead {TERMINAL_SIGNAL}")) as server:
        client = OpenAIClient(server.url, "k")
        user = OpenAIUserModel("chat", "Plan a party with boats, a band.", "m", client=client)
        early = user.generate(ASKED)
        late = user.generate([*ASKED, {"role": "user", "content": "yes"}, PLAN])

    assert (early.is_terminal, early.response) == (False, "yes, go ahead")
    assert early.slips == ("premature_end",)
    assert (late.is_terminal, late.slips) == (True, ())


def test_a_user_who_says_only_that_it_leaves_is_asked_again_and_has_failed():
    with FakeServer(lambda body: user_json(TERMINAL_SIGNAL)) as server:
        simulator = ChatSimulator(QueueAssistant(), make_user(server))
        result = simulator.rollout(ASKED, max_turns=1)

    assert result.termination_reason == "user_empty"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("slip", "slipped", "slips"),
    [
        ("13 instead of 12", True, ("told_wrongly",)),
        ("no guests", "true", ("told_wrongly",)),
        ("", False, ()),
        ("Keine", False, ()),
        ("No errors.", "false", ()),
        ("无", None, ()),
    ],
)
def test_what_the_user_says_wrongly_is_marked_by_yes_or_no_in_whatever_language(
    slip, slipped, slips
):
    turn = {"thought": "", "current_answer": "", "slip": slip, "slipped": slipped}
    answer = json.dumps({**turn, "response": "13!"})
    with FakeServer(lambda body: answer) as server:
        assert make_user(server).generate([]).slips == slips

    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["slipped"] == {"type": "boolean"}


def test_a_cut_turn_is_asked_for_again_with_more_room_and_never_repaired():
    whole = user_json("a long message of the user")
    with FakeServer(lambda body: whole) as server:
        server.cut_below = 80
        turn = make_user(server, max_tokens=20).generate([])

    assert turn.response == "a long message of the user"
    assert turn.slips == ("cut",)
    assert [body["max_tokens"] for body in server.requests] == [20, 40, 80]


def test_a_native_user_speaks_in_its_own_role_and_ends_by_a_token():
    answers = iter(["help me plan a party<|eot_id|>", "12", "thanks<|endconversation|>"])
    with FakeServer(lambda body: next(answers)) as server:
        user = NativeUserModel("chat", "Plan it for 12.", "m", client=OpenAIClient(server.url, "k"))
        first, second = user.generate([]), user.generate(ASKED)
        last = user.generate([*ASKED, {"role": "assistant", "content": "Here it is."}])

    assert (first.response, second.response, last.response) == (
        "help me plan a party",
        "12",
        "thanks",
    )
    assert (second.is_terminal, last.is_terminal) == (False, True)
    assert [m["role"] for m in server.requests[1]["messages"]] == ["system", "user", "assistant"]
    assert "Plan it for 12." in server.requests[1]["messages"][0]["content"]
    assert "response_format" not in server.requests[1]
    assert server.requests[1]["skip_special_tokens"] is False


def test_structured_output_is_dropped_where_the_server_refuses_it():
    with FakeServer(lambda body: user_json("hi")) as server:
        server.reject = lambda body: (
            (400, {"error": {"message": "response_format is not supported"}})
            if "response_format" in body
            else None
        )
        assert make_user(server).generate([]).response == "hi"

    assert server.requests[0]["response_format"]["type"] == "json_schema"


def test_personas_are_sampled_by_seed_and_checked():
    assert Persona.sample(3) == Persona.sample(3)
    assert len({Persona.sample(seed).traits for seed in range(20)}) > 5
    with pytest.raises(ValueError, match=r"Unknown traits \['grumpy'\]; known: terse"):
        Persona(("grumpy",))


def test_no_persona_contradicts_itself_and_those_that_vary_have_a_level_of_each_kind():
    for seed in range(200):
        traits = Persona.sample(seed, 3).traits
        assert len(traits) == 3
        assert not {"terse", "chatty"} <= set(traits)
        assert not {"expert", "novice"} <= set(traits)
    varied = {Persona.sample(seed, 0, vary=True).traits for seed in range(200)}
    assert len(varied) == 9
    with pytest.raises(ValueError, match="Traits of one verbosity exclude each other"):
        Persona(("terse", "chatty"))


def test_a_user_model_must_implement_one_method():
    with pytest.raises(TypeError, match="must implement generate or agenerate"):

        class Nothing(UserModel):
            pass


FACTS = (
    Fact("guests", "We are 12.", ("guests", "many", "people"), "12"),
    Fact("place", "At the lake.", ("where", "place"), "at the lake"),
)


def say(user, *texts):
    """Alternate user and assistant texts, and return the user's next turn."""
    roles = ["user", "assistant"]
    return user.generate([{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)])


def test_the_sharded_user_opens_vaguely_and_answers_what_is_asked():
    user = RuleBasedUser(FACTS, "plan a party")

    assert user.generate([]).response == "plan a party"
    assert say(user, "plan a party", "How many guests?").response == "We are 12."
    assert say(user, "plan a party", "How many guests? And where?").response == (
        "We are 12. At the lake."
    )


def test_the_sharded_user_may_answer_one_question_at_a_time():
    user = RuleBasedUser(FACTS, "plan a party", answers_several=False)

    assert say(user, "plan a party", "How many guests? And where?").response == "We are 12."


def test_the_sharded_user_has_no_preference_about_anything_else():
    user = RuleBasedUser(FACTS, "plan a party")

    turn = say(user, "plan a party", "What color is the cake?")

    assert turn.response in (
        "I have no preference there.",
        "Doesn't matter to me.",
        "Up to you.",
        "No idea, choose something.",
    )


def test_the_sharded_user_ends_when_the_answer_has_what_is_needed():
    user = RuleBasedUser(FACTS, "plan a party")
    asked = ("plan a party", "How many? Where?", "We are 12. At the lake.")

    done = "Party At The Lake for 12: boats from three, grill and lemonade, music until ten."
    assert say(user, *asked, done).is_terminal
    assert not say(user, *asked, "Party for 12.").is_terminal
    assert not say(user, *asked, "At the lake for 12, right?").is_terminal


def test_the_sharded_user_gives_up_when_patience_runs_out():
    user = RuleBasedUser(FACTS, "plan a party", patience=2)
    first = say(user, "plan a party", "Parties are nice.").response
    second = say(user, "plan a party", "Parties are nice.", first, "So nice.").response

    last = say(user, "plan a party", "x.", first, "y.", second, "z.")

    assert last.is_terminal
    assert last.response == "I give up."


def test_a_question_that_brings_a_fact_is_answered_before_the_user_gives_up():
    user = RuleBasedUser(FACTS, "plan a party", patience=2)
    nudged = ("plan a party", "x.", NUDGES[0], "y.", NUDGES[1])

    assert say(user, *nudged, "How many guests?").response == "We are 12."
    assert say(user, *nudged, "What colour is the cake?").gave_up


def test_without_values_the_sharded_user_is_content_only_when_all_is_told():
    facts = (Fact("guests", "We are twelve guests.", ("guests",)),)
    user = RuleBasedUser(facts, "plan a party")
    plan = "Boats from three, grill and lemonade at six, a band plays music until ten."

    assert not say(user, "plan a party", plan).is_terminal
    asked = ("plan a party", "How many guests?", "We are twelve guests.")
    assert say(user, *asked, plan).is_terminal


@pytest.mark.parametrize(
    "question",
    ["What is the problem that you need solved?", "Please state the problem.", "Which colour?"],
)
def test_who_knows_only_the_goal_tells_it_when_asked_for_anything(question):
    task = Task("t", "What is 1 + 1, in binary?", task_desc="getting a problem solved")
    user = RuleBasedUser.from_task(task)

    assert say(user, task.first_message, question).response == "What is 1 + 1, in binary?"


def test_who_knows_only_the_goal_says_it_again_when_asked_for_it_again_and_not_for_ever():
    user = RuleBasedUser.from_task(Task("t", "What is 1 + 1, in binary?", task_desc="maths"))
    asked, goal = "What is the problem?", "What is 1 + 1, in binary?"
    talk = ("maths", asked, goal)

    again = f"As I said: {goal}"
    assert say(user, *talk, asked).response == again
    assert say(user, *talk, "What do you need?").response == again
    assert say(user, *talk, "Which colour is it?").response in NO_PREFERENCE
    assert say(user, *talk, asked, again, asked, again, asked).gave_up


def test_asked_for_the_task_itself_the_sharded_user_says_it_again_and_not_for_ever():
    user = RuleBasedUser(FACTS, "plan a party", patience=2)
    asked = "What's the task you'd like to accomplish?"

    first = say(user, "plan a party", asked)
    last = say(user, "plan a party", asked, first.response, asked, first.response, asked)

    assert first.response == "As I said: plan a party"
    assert last.gave_up


@pytest.mark.parametrize(
    ("question", "is_goal"),
    [
        ("What do you need?", True),
        ("What's on your mind?", True),
        ("What would you like to learn?", True),
        ("What do you need for the cake?", False),
        ("What do you want to spend?", False),
    ],
)
def test_a_question_for_the_task_is_told_from_one_for_a_detail(question, is_goal):
    response = say(RuleBasedUser(FACTS, "plan a party"), "plan a party", question).response

    assert (response == "As I said: plan a party") is is_goal


def test_asked_again_the_sharded_user_says_what_it_said_and_not_that_it_does_not_care():
    user = RuleBasedUser(FACTS, "plan a party", patience=2)
    asked = ("plan a party", "How many guests?", "We are 12.", "How many people?")

    again = say(user, *asked).response

    assert again == "As I said: We are 12."
    assert say(user, *asked[:3], "How many people, and where?").response == "At the lake."
    assert say(user, *asked, again, asked[1], again, asked[1]).gave_up


def test_an_echo_of_the_user_is_no_question():
    assert say(RuleBasedUser(FACTS, "how many?"), "how many?", "how many?\n").response in NUDGES


def test_the_sharded_user_is_deterministic_by_seed():
    def turn(seed):
        return say(RuleBasedUser(FACTS, "p", seed=seed), "p", "What color?").response

    assert turn(1) == turn(1)
    assert len({turn(seed) for seed in range(10)}) > 1


def test_most_facts_of_the_bank_can_be_asked_for_by_their_own_question():
    asked = missed = 0
    for task in demo_tasks()[:100]:
        user = RuleBasedUser.from_task(task)
        for fact in task.facts:
            asked += 1
            missed += fact.answer not in say(user, task.opening, fact.question).response
    assert missed < 0.02 * asked


def test_requests_are_found_with_and_without_a_question_mark():
    assert find_questions("Hi. How many? ok! and when?\n?") == ["How many?", "and when?"]
    assert find_questions("Tell me your budget.") == ["Tell me your budget."]
    assert find_questions("I need to know:\n- your budget\n- the date") == [
        "your budget",
        "the date",
    ]
    assert find_questions("Steps:\n1. Heat the pan.\n2. Add oil.") == []
    assert find_questions("See https://x.org/?a=1 and `a ? b : c`.") == []
    assert find_questions("\u4f60\u597d\u5417\uff1f What \uff1f") == ["What \uff1f"]


def test_a_value_is_matched_by_whole_words():
    assert contains_value("We use Go.", "Go")
    assert not contains_value("Please go on.", "Go")
    assert not contains_value("a cart", "car")
    assert contains_value("At  The\nLake!", "at the lake")


def test_demo_tasks_are_distinct_and_read_back(tmp_path):
    from dataclasses import asdict

    from collabllm.tasks import load_tasks

    tasks = load_tasks("demo")
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(asdict(task)) + "\n" for task in tasks))

    assert len(tasks) == len({task.task_id for task in tasks}) > 400
    again = load_tasks(path)[5]
    assert (again.facts, again.told_openings) == (tasks[5].facts, tasks[5].told_openings)
    path.write_text('{"task_desc": "x"}\n')
    with pytest.raises(ValueError, match="row 1: 'single_turn_prompt' must be a non-empty text"):
        load_tasks(path)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("预算五百欧元。", "预算五百欧元。"),
        ("كم؟", "كم؟"),
        ("```\nx = 1\n```", "```\nx = 1\n```"),
        ("We are 12", "We are 12."),
    ],
)
def test_a_full_stop_is_added_only_where_there_is_none_in_any_script(answer, said):
    user = RuleBasedUser([Fact("budget", answer, cues=("budget",))], "Plan it.")
    talk = [{"role": "user", "content": "Plan it."}, {"role": "assistant", "content": "Budget?"}]

    assert user.generate(talk).response == said
