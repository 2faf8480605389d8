"""What a build would do: what `--plan` and `--lint` print instead of building."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from collabllm.data_engine.plan import Assumptions, plan_build
from collabllm.data_engine.settings import BuildSettings
from collabllm.event_loop import run
from collabllm.rewards.hackers import PolicyScore, find_shortcuts, to_table
from collabllm.rewards.lint import lint_rewards
from collabllm.rewards.multiturn import RewardEstimate, RewardSettings
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.session import Session

_CALIBRATION_PROMPTS = 16


def print_lint(
    turns: Sequence[Sequence[RewardEstimate]],
    settings: RewardSettings,
    scores: Sequence[PolicyScore],
) -> None:
    """Print the lint of the rewards of a few tasks, and what they pay to cheap policies."""
    print(f"Reward lint, {sum(map(len, turns))} candidates:")
    for line in lint_rewards(turns, settings).to_lines():
        print(f"- {line}")
    if not scores:
        print("- No task has a reference (single_turn_completion): cheap policies are not tried.")
        return
    print("What the reward pays to scripted policies, on the same tasks:")
    print("\n".join(to_table(scores)))
    found = find_shortcuts(scores)
    paid = f"WARNING: as much as honest work is paid to: {', '.join(found)}." if found else ""
    print(f"- {paid or 'Honest work is paid best.'}")


def print_plan(settings: BuildSettings, num_tasks: int, session: Session) -> None:
    """Print what the build would take; a local assistant's speed is measured on one batch."""
    assumptions = Assumptions(turns=settings.max_turns)
    models = {}
    if settings.assistant_kind == "openai":
        models["assistant"] = settings.assistant_model or ""
    else:
        speed = _measure_speed(session.build_assistant(settings))
        assumptions = replace(assumptions, assistant_tokens_per_s=speed)
    user = settings.to_user_spec()
    if "model" in user.options:
        models["user"] = user.options["model"]
    if settings.judge_model:
        models["judge"] = settings.judge_model
    plan = plan_build(
        num_tasks,
        settings.to_growth(),
        settings.max_new_tokens,
        models,
        assumptions,
        settings.prices,
    )
    print(plan.to_text())
    print(f"Assumed: {assumptions}. Replies of full length, no early end, full batches.")


def _measure_speed(assistant: Assistant) -> float:
    """Return new tokens per second of one batch of openings."""
    message = [{"role": "user", "content": "Write a long story about a river."}]

    async def generate() -> int:
        replies = await asyncio.gather(
            *(assistant.agenerate(message) for _ in range(_CALIBRATION_PROMPTS))  # type: ignore[arg-type]
        )
        return sum(reply.completion_tokens for reply in replies)

    started = time.perf_counter()
    tokens = run(generate())
    return tokens / (time.perf_counter() - started)
