"""Online training (GRPO) on multiturn-aware rewards, with futures by the policy itself."""

import gc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import TrainerState
from trl import GRPOConfig

from collabllm.data_processing.dataset_utils import multiturn_dataset_to_prompts
from collabllm.rewards.applicable import check_applicable
from collabllm.tasks import Task
from collabllm.training import held_out
from collabllm.training.data import TrainingData, conversion, load_rows
from collabllm.training.grpo_checks import check_goals, check_online, warn_of_reuse
from collabllm.training.grpo_conversations import Conversations
from collabllm.training.grpo_online import PolicyReward, choose_tasks
from collabllm.training.grpo_prompts import (
    build_openings,
    describe_prompts,
    fit_prompts,
)
from collabllm.training.grpo_settings import GRPOSettings
from collabllm.training.grpo_trainer import OnlineTrainer, PromptOrder, SampleTalks
from collabllm.training.method import Method, Scores
from collabllm.training.run import Run, run_training
from collabllm.training.schedule import describe_steps
from collabllm.training.token_budget import TokenBudget
from collabllm.training.tokenizing import check_first_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer


def train_grpo(settings: GRPOSettings | None = None, **arguments: Any) -> Path:
    """Train a model online; leave what `train_sft` leaves, and conversations by step.

    The policy writes several replies to a prompt. Each is worth what the conversations after it
    come to, which the policy of that step and simulated users write.

    Args:
        settings: Settings of the run; the defaults where None.
        arguments: Fields of `GRPOSettings` and of TRL's `GRPOConfig` by name; they win.

    Returns:
        The output folder.

    Raises:
        ValueError: If a setting, the data or the model does not fit; before any weights load.
        IncompleteRunError: If too many replies of a step have no reward.
        KeyboardInterrupt: After Ctrl-C; the text says what is kept and how to go on.
        SystemExit: With status 143 after SIGTERM, when a checkpoint was saved.
    """
    return run_training(GRPO(), settings, arguments)


class GRPO(Method):
    """Groups of replies to a prompt, each rewarded by the futures after it."""

    name = "grpo"
    config_class = GRPOConfig
    settings_class = GRPOSettings
    made_by = "online (GRPO) on multiturn-aware rewards, with prompts of"

    def __init__(self) -> None:
        """Start without an evaluation."""
        self._scripted: Scores | None = None

    def config_fields(self, settings: GRPOSettings) -> dict[str, Any]:
        """Return our defaults: one seed for all, short replies, the best by held-out reward."""
        return {
            "seed": settings.seed,
            "max_completion_length": 256,
            "num_generations_eval": 1,
            "disable_dropout": True,  # so that what samples is what trains
            "shuffle_dataset": settings.prompts == "turns",  # openings are shuffled by task
            "vllm_max_model_length": settings.max_length,
            "metric_for_best_model": "eval_reward",
            "greater_is_better": True,
        }

    def check(self, settings: GRPOSettings, config: Any) -> None:
        """Refuse metrics that lack something, and flags that do not work together."""
        check_online(settings, config)

    def prepare_data(
        self, settings: GRPOSettings, tokenizer: "PreTrainedTokenizerBase", config: Any
    ) -> TrainingData:
        """Collect the prompts, drop those that leave no room for a reply, and print the counts.

        Raises:
            ValueError: If a setting does not fit, or no prompt does.
        """
        if not settings.train_first_token:
            options = config.chat_template_kwargs or {}
            remedy = (
                """give --chat_template_kwargs '{"enable_thinking": false}', if it takes that"""
            )
            check_first_tokens(tokenizer, "--train_first_token false", remedy, **options)
        train_tasks, eval_tasks = settings.open_tasks("train"), settings.open_tasks("eval")
        check_applicable(
            settings.weights, [*train_tasks, *eval_tasks], alone=not settings.token_penalty
        )
        prompts = _collect_prompts(settings, train_tasks, eval_tasks)
        room = settings.max_length - config.max_completion_length
        train, report = fit_prompts(prompts, tokenizer, config, room)
        report.notes.append(describe_steps(self.count_rows(len(train), config), config))
        print(describe_prompts(report, room))
        report.check_lost(settings.max_length, settings.allow_truncation)
        per_step = config.generation_batch_size // config.num_generations
        if len(train) < per_step:
            raise ValueError(
                f"{len(train)} prompts are too few for a step of {per_step}: lower --batch_size "
                "or --gradient_accumulation_steps, or bring more tasks."
            )
        facts = {
            "prompts": f"{settings.prompts}, {len(train)} of {len(train_tasks)} task openings"
            if settings.prompts != "turns"
            else f"{settings.prompts}, {len(train)} of {report.num_items}",
            "held-out conversations": min(len(eval_tasks), settings.max_eval_tasks),
        }
        data = TrainingData(train, report, facts)
        if eval_tasks:
            openings = build_openings(eval_tasks, settings)
            data.eval, _ = fit_prompts(openings, tokenizer, config, room)
            rows = [{"messages": row["prompt"]} for row in data.eval]
            data.samples = held_out.choose_samples(rows, settings.num_sample_replies)
        return data

    def build_trainer(self, run: Run, data: TrainingData) -> "Trainer":
        """Put TRL's trainer around the model, and our reward around both.

        Raises:
            ValueError: If the model is sharded.
        """
        settings = run.settings
        if run.sharding.kind:
            raise ValueError(
                f"Online training does not run with {run.sharding.kind}: futures are written by "
                "the live model, which must be whole on each device. Use plain data parallelism "
                "(configs/accelerate/multi_gpu.yaml)."
            )
        if run.is_main:
            warn_of_reuse(run.config, run.checkpoint)
        online = PolicyReward(settings, run.config)
        chosen = choose_tasks(settings.open_tasks("train"), settings.num_sample_replies)
        samples, order = SampleTalks(chosen, settings.sample_steps), PromptOrder()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'")
            trainer = run.build_trainer(
                OnlineTrainer,
                data.facts,
                reward_funcs=[online],
                rollout_func=Conversations(online) if settings.credit == "conversation" else None,
                train_dataset=data.train,
                eval_dataset=data.eval if len(data.eval) else None,
                callbacks=[samples, order, TokenBudget(settings.max_generated_tokens)],
            )
        samples.trainer, trainer.prompt_order = trainer, order
        trainer.online = online
        trainer.held_out_tasks = choose_tasks(settings.open_tasks("eval"), settings.max_eval_tasks)
        vllm = trainer.vllm_generation if run.config.use_vllm else None
        online.attach(trainer.model, run.tokenizer, vllm, trainer.sync_vllm)
        return trainer

    def count_rows(self, num_rows: int, config: Any) -> int:
        """Return the number of replies, which is what a batch counts, to prompts that fill it."""
        per_step = config.generation_batch_size // config.num_generations
        num_asked = num_rows // per_step * per_step
        return int(num_asked * config.num_generations * config.num_iterations)

    def is_over(self, settings: GRPOSettings, state: TrainerState) -> bool:
        """Tell whether the tokens are spent."""
        return TokenBudget(settings.max_generated_tokens).is_spent(state)

    def end(self, trainer: Any) -> None:
        """Close what the conversations needed, and the trackers."""
        trainer.online.close()
        if trainer.use_vllm:  # its own shutdown wants the process group, which ends next
            vars(trainer.vllm_generation).pop("llm", None)
            gc.collect()
        super().end(trainer)

    def score(self, trainer: Any, data: TrainingData) -> Scores:
        """Measure whole conversations about held-out tasks; once, those of scripted policies."""
        tasks = trainer.held_out_tasks
        if not tasks:
            return {}
        name = "held_out-00000" if self._scripted is None else "held_out-after"
        if self._scripted is None:
            self._scripted = trainer.online.score_scripts(tasks)
            if self._scripted:
                trainer.log(dict(self._scripted))
                data.facts["reward of scripted policies"] = self._scripted
        trainer._last_loaded_step = -1  # the best weights may be back, at a step that vLLM knows
        scores: Scores = trainer.talk(name, tasks)
        return scores


def _collect_prompts(
    settings: GRPOSettings, train_tasks: Sequence[Task], eval_tasks: Sequence[Task]
) -> Dataset:
    """Return the prompts to train on: turns of the dataset, or first messages of the tasks."""
    if settings.prompts != "turns":
        return build_openings(train_tasks, settings)
    prompts = multiturn_dataset_to_prompts(load_rows(settings), **conversion(settings))["train"]
    check_goals(settings, prompts["single_turn_prompt"], train_tasks, eval_tasks)
    return prompts
