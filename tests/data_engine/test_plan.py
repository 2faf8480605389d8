"""A plan's figures, worked out by hand."""

from collabllm.data_engine import GrowthSettings
from collabllm.data_engine.plan import Assumptions, plan_build
from collabllm.rewards import RewardSettings


def test_calls_tokens_cost_and_time_of_a_plan():
    settings = GrowthSettings(
        RewardSettings({"interactivity": 1.0}, window=2, num_samples=3), num_candidates=2
    )
    assumptions = Assumptions(turns=4, server_calls_per_s=10.0, assistant_tokens_per_s=100.0)
    models = {"user": "gpt-4o-mini", "judge": "gpt-4o-mini"}

    plan = plan_build(10, settings, 100, models, assumptions)

    # 10 tasks x 4 turns x 2 candidates = 80; x 3 futures = 240; x 2 user messages = 480.
    assert plan.candidates == 80
    assert plan.calls == {"assistant": 560, "user": 490, "judge": 240}
    assert plan.completion_tokens == {"assistant": 56_000, "user": 58_800, "judge": 14_400}
    # Context: (4 + 2) / 2 turns x (40 + 100) tokens + 40 = 460.
    assert plan.prompt_tokens == {"assistant": 257_600, "user": 470_400, "judge": 328_800}
    # A judge reads (4 + 1) / 2 + 2 turns: 4.5 x 140 + 40 = 670 tokens, and its prompt of 700.
    # $0.15 and $0.60 a million: 799,200 prompt and 73,200 completion tokens.
    assert round(plan.cost_usd, 4) == 0.1638
    assert plan.seconds == 56_000 / 100 + 730 / 10
    assert "user: 490 calls" in plan.to_text()
    assert "cost: $0.16" in plan.to_text()


def test_without_a_window_the_user_is_called_at_each_turn():
    settings = GrowthSettings(RewardSettings({"facts_used": 1.0}, window=0), num_candidates=3)

    plan = plan_build(10, settings, 100, {"user": "gpt-4o-mini"}, Assumptions(turns=4))

    assert plan.calls == {"assistant": 120, "user": 40}


def test_a_rule_based_user_costs_no_calls():
    settings = GrowthSettings(RewardSettings({"facts_used": 1.0}, window=0), num_candidates=3)

    plan = plan_build(5, settings, 50, {}, Assumptions(turns=2))

    assert plan.calls == {"assistant": 30}
    assert plan.cost_usd == 0


def test_a_model_without_a_price_is_named_where_the_cost_leaves_it_out():
    settings = GrowthSettings(RewardSettings({"interactivity": 1.0}, window=0), num_candidates=1)
    models = {"user": "my-own-model", "judge": "gpt-4o-mini"}

    plan = plan_build(10, settings, 100, models, Assumptions(turns=1))

    assert plan.cost_usd > 0
    assert ", without my-own-model: no price is known (--prices)\n" in plan.to_text()


def test_copying_a_document_takes_more_tokens_than_a_score():
    def judge_tokens(weights):
        settings = GrowthSettings(RewardSettings(weights, window=0), num_candidates=1)
        plan = plan_build(1, settings, 100, {"judge": "gpt-4o-mini"}, Assumptions(turns=1))
        return plan.calls["judge"], plan.completion_tokens["judge"]

    assert judge_tokens({"interactivity": 1.0}) == (1, 60)
    assert judge_tokens({"document->bleu": 1.0}) == (1, 800)
    assert judge_tokens({"interactivity": 1.0, "document->bleu": 1.0}) == (2, 860)
