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
    lint_rewards,
    multiturn_reward,
    p_better,
    register_metric,
)
from collabllm.rewards.multiturn import combine
from collabllm.simulation import Assistant, AssistantReply, RuleBasedUser, TerminationReason
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
        "Hi", OPENING, PARTY, assistant, sharded, weights={"repetition": -1.0}, window=0
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


def test_p_better_is_students_t_on_paired_differences():
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 3.464 with 2 degrees of freedom.
    assert p_better([1, 3, 5], [0, 1, 2]) == pytest.approx(0.9629, abs=1e-4)
    assert p_better([0, 1, 2], [1, 3, 5]) == pytest.approx(0.0371, abs=1e-4)
    assert p_better([1, 1], [0, 0]) == 1.0
    assert p_better([1, 1], [1, 1]) == 0.5
    assert p_better([9], [0]) == 0.5
    assert p_better([1, None, 3], [0, 5, 1]) == p_better([1, 3], [0, 1])


def test_only_undecided_replies_get_more_futures_and_the_budget_holds():
    """`good` always wins; `coin` and `other` depend on the future's seed."""

    async def luck(conversation, task, tools):
        reply = conversation[1]["content"]
        users = "".join(m["content"] for m in conversation if m["role"] == "user")
        return 100.0 if reply == "good" else (len(reply) * len(users)) % 7

    register_metric("luck", luck)

    def estimate(budget):
        settings = RewardSettings({"luck": 1.0}, window=1, num_samples=3, budget=budget)
        return asyncio.run(
            estimate_rewards(
                ["good", "a coin", "other"], OPENING, PARTY, RuleAssistant("ok"), sharded, settings
            )
        )

    assert [len(e.futures) for e in estimate(0)] == [3, 3, 3]
    assert [len(e.futures) for e in estimate(1)] == [3, 4, 3]
    assert [len(e.futures) for e in estimate(50)] == [3, 5, 5]  # decided after two rounds


def make_future(tokens=10, reward=0.0, **metrics):
    values = {name: MetricValue(value) for name, value in metrics.items()}
    return Future([], TerminationReason.MAX_TURNS, values, tokens, reward, 0)


def lint(futures, **settings):
    return lint_rewards([RewardEstimate("r", futures)], RewardSettings(**settings))


def test_lint_finds_a_saturated_penalty():
    futures = [make_future(tokens=3000 + i, m=i % 2) for i in range(8)]

    (warning, *_) = lint(futures, weights={"m": 1.0}, token_penalty=5e-4)

    assert "limit of 1 in 100% of the futures" in warning
    assert "0.0003 keeps 95%" in warning


def test_lint_finds_constants_dominance_length_and_missing_values():
    constant = [make_future(tokens=i, m=1.0, n=i) for i in range(8)]
    dominant = [make_future(m=i % 2, n=(i // 2) % 2) for i in range(8)]
    long_wins = [make_future(tokens=10 * i, interactivity=float(i > 3), n=i % 2) for i in range(8)]
    missing = [make_future(m=None, n=i % 3) for i in range(2)]
    missing += [make_future(m=i % 2, n=i % 3) for i in range(6)]

    assert any("m is 1 in all 8" in w for w in lint(constant, weights={"m": 1.0, "n": 1.0}))
    assert lint(dominant, weights={"m": 1.0, "n": 1.0}) == []
    assert "m makes up 99%" in lint(dominant, weights={"m": 99.0, "n": 1.0})[0]
    assert any(
        "interactivity goes with the number of tokens" in w
        for w in lint(long_wins, weights={"interactivity": 1.0, "n": 1.0})
    )
    assert any("m is missing in 25%" in w for w in lint(missing, weights={"m": 1.0, "n": 1.0}))


def test_the_standard_error_is_that_of_the_mean():
    estimate = RewardEstimate("r", [make_future(reward=r) for r in (1.0, 2.0, 3.0)])

    assert estimate.value == 2.0
    assert estimate.standard_error == pytest.approx(1 / math.sqrt(3))
