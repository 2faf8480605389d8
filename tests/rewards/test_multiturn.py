"""The multiturn-aware reward: the formula by hand, shared users, missing futures, more samples."""

import asyncio
import math

import pytest

from collabllm.errors import CostLimitError, ServerError
from collabllm.rewards import (
    Future,
    MetricValue,
    RewardEstimate,
    RewardSettings,
    estimate_rewards,
    multiturn_reward,
    register_metric,
)
from collabllm.rewards.multiturn import combine
from collabllm.simulation import Assistant, AssistantReply, RuleBasedUser, TerminationReason
from collabllm.simulation.user_models import UserTurnResult
from collabllm.tasks import Fact, Task

PARTY = Task(
    "party",
    "Plan a party. It's a 6th birthday. There will be 12 guests.",
    opening="Plan a party.",
    facts=(
        Fact("age", "It's a 6th birthday.", ("old", "age"), "6th"),
        Fact("guests", "There will be 12 guests.", ("many", "guests"), "12"),
    ),
)
OPENING = [{"role": "user", "content": "Plan a party."}]


class RuleAssistant(Assistant):
    """Says the same each time; counts words as tokens."""

    def __init__(self, text="How many guests?"):
        self.text, self.seeds = text, []

    async def agenerate(self, messages, *, seed=None):
        self.seeds.append(seed)
        return AssistantReply(self.text, 0, len(self.text.split()))

    def count_tokens(self, text):
        return len(text.split())


def sharded(task, seed):
    return RuleBasedUser.from_task(task, seed=seed)


def test_a_reply_is_worth_what_follows_it():
    assistant = RuleAssistant("How many guests?")

    asks = multiturn_reward(
        "How old is the child?",
        OPENING,
        PARTY,
        assistant,
        sharded,
        weights={"facts_elicited": 2.0},
        token_penalty=0.01,
        window=2,
        num_samples=3,
    )

    # user: age; assistant asks for guests (3 tokens); user: guests; assistant again (3 tokens).
    # R = 2 * 1.0 - 0.01 * (5 + 3 + 3)
    assert asks.value == pytest.approx(1.89)
    assert asks.standard_error == pytest.approx(0.0)
    assert asks.means == {"facts_elicited": 1.0}
    assert [future.num_tokens for future in asks.futures] == [11, 11, 11]
    assert [m["role"] for m in asks.futures[0].messages] == ["user", "assistant"] * 3


def test_the_window_limits_how_far_it_looks():
    rewards = [
        multiturn_reward(
            "How old is the child?",
            OPENING,
            PARTY,
            RuleAssistant(),
            sharded,
            weights={"facts_elicited": 1.0},
            window=window,
            num_samples=1,
        ).value
        for window in (0, 1, 2)
    ]

    assert rewards == [0.0, 0.5, 1.0]


def test_window_zero_simulates_nothing():
    assistant = RuleAssistant()

    estimate = multiturn_reward(
        "Hi", OPENING, PARTY, assistant, sharded, weights={"repetition": 1.0}, window=0
    )

    assert assistant.seeds == []
    assert len(estimate.futures) == 1
    assert estimate.standard_error is None


def test_the_token_penalty_ends_at_one():
    settings = RewardSettings({"m": 1.0}, token_penalty=0.1)

    assert combine({"m": MetricValue(0.5)}, 4, settings) == pytest.approx(0.1)
    assert combine({"m": MetricValue(0.5)}, 400, settings) == pytest.approx(-0.5)


def test_a_missing_metric_makes_a_future_missing_and_one_that_does_not_apply_adds_nothing():
    settings = RewardSettings({"a": 1.0, "b": 2.0})

    assert combine({"a": MetricValue(1.0), "b": MetricValue(None, "dead")}, 0, settings) is None
    not_applicable = MetricValue(None, "no facts", applicable=False)
    assert combine({"a": MetricValue(1.0), "b": not_applicable}, 0, settings) == 1.0


def test_candidates_of_a_turn_meet_the_same_users():
    seen = []

    def remember(task, seed):
        seen.append(seed)
        return sharded(task, seed)

    settings = RewardSettings({"facts_elicited": 1.0}, window=1, num_samples=3)
    asyncio.run(
        estimate_rewards(["a", "b"], OPENING, PARTY, RuleAssistant(), remember, settings, seed=5)
    )

    assert len(seen) == 6
    assert sorted(seen[:3]) == sorted(seen[3:])
    assert len(set(seen)) == 3


class FlakyAssistant(RuleAssistant):
    """Fails every second call."""

    async def agenerate(self, messages, *, seed=None):
        self.seeds.append(seed)
        if len(self.seeds) % 2:
            raise ServerError("down")
        return AssistantReply(self.text)


def test_failed_futures_are_missing_and_never_zero():
    estimate = multiturn_reward(
        "How old?",
        OPENING,
        PARTY,
        FlakyAssistant(),
        sharded,
        weights={"facts_elicited": 1.0},
        window=1,
        num_samples=4,
    )

    assert sorted(estimate.rewards, key=str) == [0.5, 0.5, None, None]
    assert (estimate.value, estimate.num_missing) == (0.5, 2)
    failed = next(future for future in estimate.futures if future.reward is None)
    assert failed.termination_reason is TerminationReason.SERVER_ERROR
    assert "server_error" in failed.metrics["facts_elicited"].reason


def test_a_future_in_which_the_user_told_something_wrongly_is_missing():
    class Careless(RuleBasedUser):
        async def agenerate(self, messages, *, seed=None):
            return UserTurnResult("It's a 9th birthday.", slips=("told_wrongly",))

    estimate = multiturn_reward(
        "How old?",
        OPENING,
        PARTY,
        RuleAssistant(),
        lambda task, seed: Careless.from_task(task) if seed % 2 else sharded(task, seed),
        weights={"facts_elicited": 1.0},
        window=1,
        num_samples=6,
    )

    assert estimate.value == 0.5
    reasons = {f.metrics["facts_elicited"].reason for f in estimate.futures if f.reward is None}
    assert reasons == {"the user marked that it had told something wrongly"}


class BrokeAssistant(RuleAssistant):
    async def agenerate(self, messages, *, seed=None):
        raise CostLimitError("The cost limit of $1 is reached ($1.0000 spent).")


def test_the_cost_limit_stops_a_reward_instead_of_scoring_it():
    with pytest.raises(CostLimitError, match=r"\$1 is reached"):
        multiturn_reward(
            "x", OPENING, PARTY, BrokeAssistant(), sharded, weights={"repetition": 1.0}
        )


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="window must be at least 0, got -1"):
        RewardSettings({"m": 1.0}, window=-1)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        RewardSettings({"m": 1.0}, num_samples=0)
    with pytest.raises(ValueError, match="at least one metric"):
        RewardSettings({})
    with pytest.raises(ValueError, match="did you mean 'facts_elicited'"):
        multiturn_reward(
            "x", OPENING, PARTY, RuleAssistant(), sharded, weights={"facts_elicted": 1.0}
        )


class MuteAssistant(RuleAssistant):
    """Says nothing."""

    async def agenerate(self, messages, *, seed=None):
        return AssistantReply("")


def estimate_all(replies, settings, assistant=None, **more):
    assistant = assistant or RuleAssistant("ok")
    return asyncio.run(
        estimate_rewards(replies, OPENING, PARTY, assistant, sharded, settings, **more)
    )


def test_an_empty_and_a_cut_reply_get_the_floor_and_no_futures():
    assistant = RuleAssistant("How many guests?")
    settings = RewardSettings(
        {"facts_elicited": 1.0, "over_asking": -0.5}, token_penalty=0.001, window=2, num_samples=3
    )

    empty, cut, refusal = estimate_all(
        [" ", "How old is", "No."], settings, assistant, cut=[False, True, False]
    )

    # Nothing elicited, all questions needless, the token penalty in full: 0 - 0.5 - 1.
    assert (empty.value, cut.value) == (-1.5, -1.5)
    assert [len(e.futures) for e in (empty, cut, refusal)] == [1, 1, 3]
    assert refusal.value > cut.value


def test_silence_in_a_future_counts_against_the_assistant():
    settings = RewardSettings({"facts_elicited": 1.0, "over_asking": -0.5}, window=2, num_samples=2)

    (mute,) = estimate_all(["How old is the child?"], settings, MuteAssistant())

    assert mute.rewards == [-0.5, -0.5]
    assert mute.futures[0].termination_reason is TerminationReason.ASSISTANT_EMPTY
    assert mute.num_missing == 0


def test_nan_and_infinity_are_missing():
    settings = RewardSettings({"odd": 1.0}, window=0)
    for value in (math.nan, math.inf, -math.inf, None):

        async def odd(conversation, task, tools, value=value):
            return value

        register_metric("odd", odd)
        (estimate,) = estimate_all(["x"], settings)

        assert (estimate.value, estimate.num_missing) == (None, 1)
        assert "the metric gave" in estimate.futures[0].metrics["odd"].reason
    assert combine({"odd": MetricValue(math.nan)}, 0, settings) is None
    with pytest.raises(ValueError, match="token_penalty must be at least 0, got nan"):
        RewardSettings({"odd": 1.0}, token_penalty=math.nan)


def test_the_budget_goes_to_the_best_and_the_worst_until_their_order_is_sure():
    async def luck(conversation, task, tools):
        users = "".join(m["content"] for m in conversation if m["role"] == "user")
        reply = conversation[1]["content"]
        noise = ((len(users) * 37 + len(reply) * len(users)) % 11) / 100
        return {"good": 4.55, "bad": 4.45}.get(reply, 4.5) + noise

    register_metric("luck", luck)

    def count(replies, budget):
        settings = RewardSettings({"luck": 1.0}, window=1, num_samples=3, budget=budget)
        return [len(e.futures) for e in estimate_all(replies, settings)]

    assert count(["good", "middle", "bad"], 0) == [3, 3, 3]
    assert count(["good", "middle", "bad"], 1) == [3, 3, 3]  # a pair needs two
    grown = count(["good", "middle", "bad"], 4)
    assert grown[1] == 3
    assert grown[0] == grown[2] > 3
    equal = count(["middle", "other", "third"], 6)
    assert sum(equal) == 15  # nothing is sure of equal ones


def test_the_standard_error_is_that_of_the_mean():
    futures = [Future([], TerminationReason.MAX_TURNS, {}, 10, r, 0) for r in (1.0, 2.0, 3.0)]

    estimate = RewardEstimate("r", futures)

    assert estimate.value == 2.0
    assert estimate.standard_error == pytest.approx(1 / math.sqrt(3))


def test_long_honest_work_is_worth_more_than_silence_also_with_a_weight_without_limit():
    settings = RewardSettings({"facts_elicited": 1.0, "facts_used": 0.5, "token_amount": -0.005})
    perfect = {"facts_elicited": MetricValue(1.0), "facts_used": MetricValue(1.0)}

    long = combine({**perfect, "token_amount": MetricValue(600.0)}, 600, settings)
    short = combine({**perfect, "token_amount": MetricValue(100.0)}, 100, settings)

    assert (long, short) == (pytest.approx(0.5), pytest.approx(1.0))
    assert settings.floor == -1.0
