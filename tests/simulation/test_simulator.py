"""ChatSimulator: whose turn it is, what counts, how it ends."""

import asyncio
import threading
from collections import deque

import pytest

from collabllm.errors import ContextFullError, ServerError, UnparseableError
from collabllm.servers.client import OpenAIClient
from collabllm.simulation import (
    Assistant,
    AssistantReply,
    ChatSimulator,
    OpenAIAssistant,
    OpenAIUserModel,
    TerminationReason,
    UserModel,
    UserTurnResult,
    audit_conversation,
)
from collabllm.simulation.simulator import derive_seed
from tests.fake_server import FakeServer, user_json


class QueueAssistant(Assistant):
    """Gives the queued replies in order, then numbered ones; an exception is raised."""

    def __init__(self, *replies):
        self.replies = deque(replies)
        self.seen = []

    async def agenerate(self, messages, *, seed=None):
        self.seen.append(([dict(m) for m in messages], seed))
        reply = self.replies.popleft() if self.replies else f"reply {len(self.seen)}"
        if isinstance(reply, Exception):
            raise reply
        return AssistantReply(reply, prompt_tokens=3, completion_tokens=5)


class QueueUser(UserModel):
    """Says the queued turns in order, then numbered ones."""

    def __init__(self, *turns):
        super().__init__("chat", "goal")
        self.turns = deque(turns)
        self.count = 0

    def generate(self, messages):
        self.count += 1
        turn = self.turns.popleft() if self.turns else f"message {self.count}"
        if isinstance(turn, Exception):
            raise turn
        return turn if isinstance(turn, UserTurnResult) else UserTurnResult(turn)


OPEN = [{"role": "user", "content": "open"}]


def roles(result):
    return [message["role"][0] for message in result.messages]


def test_a_new_conversation_starts_with_the_user_and_ends_with_the_assistant():
    result = ChatSimulator(QueueAssistant(), QueueUser()).rollout([], 2)

    assert [m["content"] for m in result.messages] == [
        "message 1",
        "reply 1",
        "message 2",
        "reply 2",
    ]
    assert result.termination_reason is TerminationReason.MAX_TURNS
    assert not result.terminated_by_user
    assert result.usage == {"replies": 2, "prompt_tokens": 6, "completion_tokens": 10}


def test_an_open_user_message_is_answered_first_and_does_not_count():
    prefix = [dict(message) for message in OPEN]

    two = ChatSimulator(QueueAssistant(), QueueUser()).rollout(prefix, 2)
    zero = ChatSimulator(QueueAssistant(), QueueUser()).rollout(prefix, 0)

    assert roles(two) == list("uauaua")
    assert roles(zero) == list("ua")
    assert prefix == OPEN


def test_who_starts_can_be_set():
    simulator = ChatSimulator(QueueAssistant(), QueueUser())

    assert roles(simulator.rollout([], 1, start_with_assistant=True)) == list("aua")
    assert roles(simulator.rollout(OPEN, 1, start_with_assistant=False)) == list("uua")
    ended = [*OPEN, {"role": "assistant", "content": "x"}]
    with pytest.raises(ValueError, match="prefix ends with the assistant"):
        simulator.rollout(ended, 1, start_with_assistant=True)
    with pytest.raises(ValueError, match="max_turns must be at least 0, got -1"):
        simulator.rollout([], -1)


def test_a_goodbye_is_kept_in_the_record_and_not_sent_on():
    user = QueueUser("hello", UserTurnResult("bye", is_terminal=True))
    assistant = QueueAssistant()

    result = ChatSimulator(assistant, user).rollout([], 5)

    assert result.termination_reason is TerminationReason.USER_SATISFIED
    assert result.terminated_by_user
    assert roles(result) == list("ua")
    assert [turn.response for turn in result.user_turns] == ["hello", "bye"]


@pytest.mark.parametrize(
    ("assistant", "user", "reason"),
    [
        (["a", ContextFullError("full")], [], TerminationReason.CONTEXT_FULL),
        ([ServerError("down")], [], TerminationReason.SERVER_ERROR),
        (["", " "], [], TerminationReason.ASSISTANT_EMPTY),
        ([], ["", ""], TerminationReason.USER_EMPTY),
        ([], [UnparseableError("bad")], TerminationReason.USER_UNPARSEABLE),
    ],
)
def test_every_failure_ends_with_its_name(assistant, user, reason):
    result = ChatSimulator(QueueAssistant(*assistant), QueueUser(*user)).rollout([], 3)

    assert result.termination_reason is reason


def test_a_full_context_is_a_result_only_of_what_the_assistant_has_said():
    full = (400, {"error": {"code": "context_length_exceeded"}})
    with FakeServer(lambda body: user_json("hi")) as server:
        server.reject = lambda body: full if body["model"] == "full" else None
        client = OpenAIClient(server.url, "key")
        small = OpenAIAssistant("full", client=client)
        user = OpenAIUserModel("chat", "goal", model="full", client=client)
        ends = [
            ChatSimulator(QueueAssistant(), user).rollout([], 2),
            ChatSimulator(small, QueueUser()).rollout([], 2),
            ChatSimulator(small, QueueUser()).rollout(
                [*OPEN, {"role": "assistant", "content": "a long reply"}], 2
            ),
        ]

    assert [end.termination_reason for end in ends] == [
        "server_error",
        "server_error",
        "context_full",
    ]
    assert [bool(end.why_unscored) for end in ends] == [True, True, False]
    assert "the user model's: lower --user_max_tokens" in ends[0].error
    assert "There is no reply yet: lower --max_new_tokens" in ends[1].error


def test_a_user_who_gives_up_is_not_content():
    content = UserTurnResult("bye", is_terminal=True)
    weary = UserTurnResult("forget it", is_terminal=True, gave_up=True)

    ends = [
        ChatSimulator(QueueAssistant(), QueueUser(*turns)).rollout([], 3)
        for turns in (("hi", content), ("hi", weary), (content,), (weary,))
    ]

    assert [end.termination_reason for end in ends] == [
        "user_satisfied",
        "user_gave_up",
        "user_empty",
        "user_empty",
    ]
    assert [end.terminated_by_user for end in ends] == [True, True, False, False]


def test_what_the_user_told_wrongly_is_not_charged_to_the_assistant():
    wrong = UserTurnResult("13!", slips=("told_wrongly",))
    slow = UserTurnResult("yes", slips=("premature_end", "cut"))

    reasons = [
        ChatSimulator(QueueAssistant(), QueueUser(turn)).rollout([], 1).why_unscored
        for turn in (wrong, slow, "12!")
    ]

    assert reasons == ["the user marked that it had told something wrongly", "", ""]


def test_an_assistant_that_says_nothing_has_failed_and_is_not_left_out():
    result = ChatSimulator(QueueAssistant("", ""), QueueUser()).rollout([], 3)

    reason = result.termination_reason
    assert (reason.fault, reason.is_failure) == ("assistant", False)
    assert result.messages[-1] == {"role": "assistant", "content": ""}


def test_endings_know_whose_fault_they_are():
    faults = {reason.value: reason.fault for reason in TerminationReason if reason.fault}

    assert faults == {
        "assistant_empty": "assistant",
        "user_empty": "user",
        "user_unparseable": "user",
        "server_error": "run",
        "error": "run",
        "cancelled": "run",
    }
    assert TerminationReason("user_empty") is TerminationReason.USER_EMPTY


def test_cut_replies_and_thoughts_are_in_the_record_and_thoughts_out_of_sight():
    class Thinker(Assistant):
        async def agenerate(self, messages, *, seed=None):
            return AssistantReply("half a", 1, 9, "length", "secret thoughts")

    result = ChatSimulator(Thinker(), QueueUser()).rollout([], 2)

    assert result.num_cut == 2
    assert result.replies[0].reasoning == "secret thoughts"
    assert not any("secret" in message["content"] for message in result.messages)


def test_any_object_that_generates_texts_is_an_assistant():
    class Mine:
        def generate(self, messages):
            return f"<think>hm</think>{len(messages)} so far"

    result = ChatSimulator(Mine(), QueueUser()).rollout([], 1)

    assert result.messages[-1]["content"] == "1 so far"
    assert result.replies[0].reasoning == "hm"
    with pytest.raises(TypeError, match="needs a method generate"):
        ChatSimulator(object(), QueueUser())


def test_lone_surrogates_become_question_marks():
    result = ChatSimulator(QueueAssistant("b\udc80"), QueueUser("a\ud800")).rollout([], 1)

    assert [m["content"] for m in result.messages] == ["a?", "b?"]


def test_an_unexpected_error_is_raised_to_a_caller_and_an_ending_of_a_batch():
    def talk():
        return ChatSimulator(QueueAssistant("a", KeyError("x")), QueueUser())

    with pytest.raises(KeyError):
        talk().rollout([], 3)
    result = asyncio.run(talk().arollout([], 3, keep_errors=True))

    assert result.termination_reason is TerminationReason.ERROR
    assert result.error == "KeyError: 'x'"
    assert roles(result) == list("uau")


def test_one_empty_reply_is_asked_for_again():
    result = ChatSimulator(QueueAssistant("", "there"), QueueUser("", "hi")).rollout([], 1)

    assert [m["content"] for m in result.messages] == ["hi", "there"]


def test_the_token_budget_ends_the_conversation_after_a_reply():
    result = ChatSimulator(QueueAssistant(), QueueUser(), token_budget=8).rollout([], 9)

    assert result.termination_reason is TerminationReason.TOKEN_BUDGET
    assert roles(result) == list("uaua")


def test_rollout_works_inside_a_running_loop_and_from_threads():
    def talk():
        return ChatSimulator(QueueAssistant(), QueueUser()).rollout([], 2)

    async def cell():
        return talk()

    results = [asyncio.run(cell())]
    threads = [threading.Thread(target=lambda: results.append(talk())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [roles(result) for result in results] == [list("uaua")] * 5


def test_an_assistant_may_implement_either_method():
    class Plain(Assistant):
        def generate(self, messages):
            return "plain " + messages[-1]["content"]

    assert ChatSimulator(Plain(), QueueUser()).rollout(OPEN, 0).messages[-1] == {
        "role": "assistant",
        "content": "plain open",
    }
    assert QueueAssistant("a").generate(OPEN) == "a"
    with pytest.raises(TypeError, match="must implement generate or agenerate"):

        class Nothing(Assistant):
            pass


def test_seeds_derive_from_the_seed_and_the_turn():
    first, second = QueueAssistant(), QueueAssistant()
    ChatSimulator(first, QueueUser()).rollout([], 2, seed=1)
    ChatSimulator(second, QueueUser()).rollout([], 2, seed=1)

    seeds = [seed for _, seed in first.seen]
    assert seeds == [seed for _, seed in second.seen]
    assert len(set(seeds)) == 2
    assert derive_seed(1, "a") != derive_seed(2, "a")


GOAL = "I need a letter to my landlord Mr. Okafor about the heating, broken since last Monday."


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (["hi", "x", "I'd be happy to help you with that!"], "role_flip"),
        (
            ["hi", "x", "Right! Would you like to do another, or something else you\u2019d like?"],
            "role_flip",
        ),
        ([GOAL], "goal_leak"),
        (["please do it now ok", "x", "Please do it  now ok"], "repeat"),
        (['{"thought": "hm", "response": "hi"}'], "json_leftover"),
    ],
)
def test_the_audit_finds_faults_of_the_user(texts, fault):
    talk = [
        {"role": "user" if i % 2 == 0 else "assistant", "content": text}
        for i, text in enumerate(texts)
    ]

    found = audit_conversation(talk, GOAL)

    assert [name for name, there in found.items() if there] == [fault]


def test_the_opening_that_the_task_gives_is_no_leak():
    talk = [{"role": "user", "content": GOAL}]

    assert not audit_conversation(talk, f"{GOAL} Be firm.", opening=GOAL)["goal_leak"]
    assert audit_conversation(talk, f"{GOAL} Be firm.", opening="Hi!")["goal_leak"]


def test_the_audit_accepts_a_good_user_and_details_that_were_asked_for():
    talk = [
        {"role": "user", "content": "help me write to the landlord"},
        {"role": "assistant", "content": "What about, and who is it?"},
        {"role": "user", "content": GOAL},
    ]

    assert not any(audit_conversation(talk, GOAL).values())
