"""What a build will take: calls, tokens, dollars and time, before any of it is spent."""

from collections.abc import Mapping
from dataclasses import dataclass

from collabllm.data_engine.turn_groups import GrowthSettings
from collabllm.rewards.registry import MetricSpec, find_specs
from collabllm.servers.prices import find_price, name_unpriced


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted; a short run's figures make it better.

    `turns` is how many turns a conversation lasts, `future_share` the share of a future's window
    that is used before the user ends it. Tokens are counted per call; `assistant_tokens_per_s` is
    for a local assistant, `server_calls_per_s` for whoever stands behind a server.
    """

    turns: float
    user_message_tokens: int = 40
    user_prompt_tokens: int = 500
    user_output_tokens: int = 120
    judge_prompt_tokens: int = 700
    future_share: float = 1.0
    assistant_tokens_per_s: float = 60.0
    server_calls_per_s: float = 20.0


@dataclass(frozen=True)
class Plan:
    """Predicted figures of a build; the cost leaves out the models `without_price`."""

    num_tasks: int
    candidates: int
    calls: dict[str, int]
    prompt_tokens: dict[str, int]
    completion_tokens: dict[str, int]
    cost_usd: float
    without_price: tuple[str, ...]
    seconds: float

    def to_text(self) -> str:
        """Write the plan as lines."""
        lines = [
            f"{self.num_tasks:,} tasks, {self.candidates:,} candidates",
            *(
                f"{role}: {self.calls[role]:,} calls, {self.prompt_tokens[role]:,} prompt and "
                f"{self.completion_tokens[role]:,} completion tokens"
                for role in self.calls
            ),
            f"cost: ${self.cost_usd:.2f}{name_unpriced(self.without_price)}",
            f"time: about {_duration(self.seconds)}",
        ]
        return "\n".join(lines)


def plan_build(
    num_tasks: int,
    settings: GrowthSettings,
    max_new_tokens: int,
    models: Mapping[str, str],
    assumptions: Assumptions,
    prices: Mapping[str, tuple[float, float]] | None = None,
) -> Plan:
    """Predict what a build takes.

    Args:
        num_tasks: Tasks to grow.
        settings: Settings of the build.
        max_new_tokens: Taken as the length of every reply, so the plan errs on the high side.
        models: Server model by role (`assistant`, `user`, `judge`); a role without one costs
            nothing, a user without one is not called.
        assumptions: Lengths and speeds.
        prices: As in `UsageLedger`.
    """
    reward = settings.reward
    turns = num_tasks * assumptions.turns
    candidates = turns * settings.num_candidates
    futures = candidates * reward.num_futures + turns * reward.budget
    future_turns = futures * reward.window * assumptions.future_share
    judged = [spec for name in reward.weights for spec in find_specs(name) if _is_judged(spec)]
    turn_tokens = assumptions.user_message_tokens + max_new_tokens
    context_tokens = (assumptions.turns + reward.window) / 2 * turn_tokens + 40
    judged_tokens = ((assumptions.turns + 1) / 2 + reward.window) * turn_tokens + 40
    calls = {"assistant": candidates + future_turns}
    prompts = {"assistant": context_tokens}
    outputs: dict[str, float] = {"assistant": max_new_tokens}
    if "user" in models:
        # Without a window the user is asked at each turn, else a future's message is taken.
        calls["user"] = num_tasks + future_turns if reward.window else turns
        prompts["user"] = assumptions.user_prompt_tokens + context_tokens
        outputs["user"] = assumptions.user_output_tokens
    if judged:
        calls["judge"] = futures * len(judged)
        prompts["judge"] = assumptions.judge_prompt_tokens + judged_tokens
        outputs["judge"] = sum(spec.judge_output_tokens for spec in judged) / len(judged)
    cost, without_price = 0.0, []
    for role in calls.keys() & models.keys():
        price = find_price(models[role], prices)
        if price is None:
            without_price.append(models[role])
        else:
            cost += calls[role] * (prompts[role] * price[0] + outputs[role] * price[1]) / 1e6
    server_calls = sum(n for role, n in calls.items() if role in models)
    local_tokens = 0.0 if "assistant" in models else calls["assistant"] * max_new_tokens
    seconds = (
        local_tokens / assumptions.assistant_tokens_per_s
        + server_calls / assumptions.server_calls_per_s
    )
    return Plan(
        num_tasks,
        round(candidates),
        {role: round(n) for role, n in calls.items()},
        {role: round(n * prompts[role]) for role, n in calls.items()},
        {role: round(n * outputs[role]) for role, n in calls.items()},
        cost,
        tuple(sorted(set(without_price))),
        seconds,
    )


def _is_judged(spec: MetricSpec) -> bool:
    return "judge" in spec.needs


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
