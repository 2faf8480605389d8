"""What the policy in training talks with and is rewarded by, and what a step's log says of it."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from collabllm.data_processing.reply_tokens import end_ids
from collabllm.errors import IncompleteRunError
from collabllm.event_loop import run
from collabllm.rewards import MultiturnReward, RewardEstimate
from collabllm.rewards.hackers import find_shortcuts, score_policies, to_table
from collabllm.rewards.scoring import NO_REPLY, Future
from collabllm.simulation.assistant.live import LiveAssistant
from collabllm.simulation.session import Session
from collabllm.tasks import Task
from collabllm.training.grpo_settings import GRPOSettings

logger = logging.getLogger(__name__)

_NUM_POLICY_TASKS = 10
Scores = dict[str, float]


class PolicyReward:
    """A reward function for TRL: futures that the policy itself writes, with today's weights.

    Args:
        settings: Settings of the run.
        config: TRL's, which says how the policy samples.
    """

    __name__ = "multiturn_reward"

    def __init__(self, settings: GRPOSettings, config: Any) -> None:
        if settings.max_cost is not None:  # each process has a ledger of its own
            settings = replace(settings, max_cost=settings.max_cost / config.world_size)
        self.settings, self.config = settings, config
        self.stack = ExitStack()
        session = Session(settings, self.stack)
        self.tools = settings.build_tools(session)
        self.user_factory = session.build_user_factory(settings)
        session.preflight(settings.models_behind_servers())
        self.tasks = {task.single_turn_prompt: task for task in settings.load_tasks()}
        self.policy: Any = None
        self._inner: Any = None
        self._num_replied = 0

    @property
    def num_generated(self) -> int:
        """Tokens that the policy has written in this process, held-out conversations included."""
        return int(self.policy.num_generated) + self._num_replied

    def attach(
        self, model: Any, tokenizer: Any, vllm: Any = None, sync: Callable[[], None] = lambda: None
    ) -> None:
        """Take the model in training as the assistant of all futures.

        Args:
            model: In training.
            tokenizer: Its tokenizer.
            vllm: The trainer's `VLLMGeneration`, where that generates.
            sync: Gives vLLM the weights of this moment.
        """
        config, settings = self.config, self.settings
        self.policy = LiveAssistant(
            model,
            tokenizer,
            max_new_tokens=config.max_completion_length,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            max_context=settings.max_length,
            template_options=config.chat_template_kwargs,
            vllm=vllm,
            sync=sync,
        )
        self.stack.callback(self.policy.close)
        self.tools.count_tokens = self.policy.count_tokens
        self._inner = MultiturnReward(
            self.policy,
            self.user_factory,
            weights=settings.reward.weights,
            window=settings.window,
            num_samples=settings.num_samples,
            token_penalty=settings.token_penalty,
            tasks=list(self.tasks.values()),
            tools=self.tools,
            seed=settings.seed,
            deadline_s=settings.reward_timeout_s,
            end_token_ids=end_ids(model, tokenizer),
        )

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Reward each completion; None, which TRL leaves out of its group, where none could be had.

        Raises:
            IncompleteRunError: If too many have none.
        """
        estimates = columns.get("estimate")  # those of whole conversations, which are over
        if estimates is None:
            self._num_replied += sum(map(len, columns["completion_ids"]))
            with self.policy.borrow():
                estimates = run(self._inner.estimate(prompts, completions, **columns))
        for name, value in describe(estimates).items():
            columns["log_metric"](name, value)
        self._check_missing(estimates)
        return [estimate.value for estimate in estimates]

    def _check_missing(self, estimates: Sequence[RewardEstimate]) -> None:
        missing = [estimate for estimate in estimates if estimate.value is None]
        if len(missing) <= self.settings.max_missing * len(estimates):
            return
        futures = [future for estimate in missing for future in estimate.futures]
        reasons = [value.reason for f in futures for value in f.metrics.values() if value.reason]
        timeout = f"their futures took over {self.settings.reward_timeout_s:g} s"
        raise IncompleteRunError(
            f"{len(missing)} of {len(estimates)} replies of this step have no reward "
            f"({reasons[0] if reasons else timeout}); --max_missing {self.settings.max_missing:g} "
            "allows no more."
        )

    def score_scripts(self, tasks: Sequence[Task]) -> Scores:
        """Print and return what the reward pays to scripted policies; none with paid users."""
        if self.settings.models_behind_servers():
            return {}
        reward = self.settings.reward
        scores = run(
            score_policies(
                choose_tasks(tasks, _NUM_POLICY_TASKS),
                self.user_factory,
                reward,
                self.tools,
                max_turns=self.settings.max_turns,
            )
        )
        if scores:
            print("What the reward pays to scripted policies, a token being a word, held out:")
            print("\n".join(to_table(scores)))
        for name in find_shortcuts(scores):
            logger.warning("ATTENTION: the reward pays %s as much as honest work.", name)
        return {f"scripted/{s.name}": s.reward for s in scores if s.reward is not None}

    def close(self) -> None:
        """Give the model back and close what was opened."""
        self.stack.close()


def choose_tasks(tasks: Sequence[Task], number: int) -> list[Task]:
    """Draw some tasks, the same ones every time; their order may go by kind and by what is told."""
    picks = np.random.default_rng(0).permutation(len(tasks))[:number]
    return [tasks[pick] for pick in sorted(picks)]


def describe(estimates: Sequence[RewardEstimate]) -> Scores:
    """Return what a step's log says about its futures.

    `futures/` with each metric, `tokens`, `standard_error` of a reward, and the shares of replies
    that have no reward (`missing`) and of those that got the floor (`floor`).
    """
    futures = [future for estimate in estimates for future in estimate.futures]
    floored = [f for f in futures if f.termination_reason == NO_REPLY]
    found = {
        **mean_metrics(futures),
        "tokens": mean(float(f.num_tokens) for f in futures if f not in floored),
        "standard_error": mean(estimate.standard_error for estimate in estimates),
        "missing": mean(float(estimate.value is None) for estimate in estimates),
        "floor": len(floored) / max(len(estimates), 1),
    }
    return {f"futures/{name}": value for name, value in found.items() if value is not None}


def mean_metrics(futures: Sequence[Future]) -> dict[str, float | None]:
    """Return the mean of each metric over the futures in which it has a value."""
    names = dict.fromkeys(name for future in futures for name in future.metrics)
    return {name: mean(f.metrics[name].value for f in futures) for name in names}


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
