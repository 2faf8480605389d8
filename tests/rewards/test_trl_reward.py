"""TRL's GRPO trainer really trains on the multiturn-aware reward."""

import pytest
from datasets import Dataset

from collabllm.rewards import MultiturnReward
from collabllm.simulation import LocalAssistant, RuleBasedUser
from collabllm.tasks import demo_tasks
from tests.rewards.test_multiturn import OPENING, PARTY, RuleAssistant, sharded
from tests.training.conftest import save_tiny_model


def party_reward(**arguments):
    """Reward replies about the party by one message of its user."""
    weights = {"facts_elicited": 1.0, "over_asking": -0.5}
    return MultiturnReward(
        RuleAssistant("ok"), sharded, weights=weights, window=1, tasks=[PARTY], **arguments
    )


def test_every_completion_gets_the_reward_of_its_own_task():
    import asyncio

    reward = MultiturnReward(
        RuleAssistant("ok"), sharded, weights={"facts_elicited": 1.0}, window=1, tasks=[PARTY]
    )
    completions = [[{"role": "assistant", "content": text}] for text in ("How old?", "Done.")]

    values = asyncio.run(
        reward([OPENING] * 2, completions, single_turn_prompt=[PARTY.single_turn_prompt] * 2)
    )

    assert values == [0.5, 0.0]


def test_a_completion_that_the_limit_cut_gets_the_floor():
    import asyncio

    reward = party_reward(end_token_ids=[2])
    completions = [[{"role": "assistant", "content": text}] for text in ("How old?", "How old", "")]

    values = asyncio.run(
        reward(
            [OPENING] * 3,
            completions,
            single_turn_prompt=[PARTY.single_turn_prompt] * 3,
            completion_ids=[[5, 6, 2], [5, 6], [2]],
        )
    )

    assert values == [0.5, -0.5, -0.5]


def test_a_completion_that_says_an_earlier_reply_again_gets_the_floor():
    import asyncio

    reward = party_reward()
    prompt = [
        *OPENING,
        {"role": "assistant", "content": "How old is the child?"},
        {"role": "user", "content": "It's a 6th birthday."},
        {"role": "assistant", "content": "Thank you!"},
        {"role": "user", "content": "More."},
    ]
    texts = ("How old  is the CHILD?", "How old is the child? Tell me.", "Thank you!")
    completions = [[{"role": "assistant", "content": text}] for text in texts]

    estimates = asyncio.run(
        reward.estimate(
            [prompt] * 3, completions, single_turn_prompt=[PARTY.single_turn_prompt] * 3
        )
    )

    endings = [[future.termination_reason for future in e.futures] for e in estimates]
    assert [ending == ["no_reply"] for ending in endings] == [True, False, False]
    assert estimates[0].value == -0.5


def test_a_completion_whose_futures_outlast_the_deadline_goes_without_a_reward():
    import asyncio

    class Straggler(RuleAssistant):
        async def agenerate(self, messages, *, seed=None):
            await asyncio.Event().wait()

    reward = MultiturnReward(
        Straggler(),
        sharded,
        weights={"facts_elicited": 1.0},
        window=1,
        tasks=[PARTY],
        deadline_s=0.2,
    )
    completion = [{"role": "assistant", "content": "How old?"}]

    values = asyncio.run(
        reward([OPENING], [completion], single_turn_prompt=[PARTY.single_turn_prompt])
    )

    assert values == [None]


@pytest.mark.slow
def test_grpo_steps_train_on_it(tmp_path):
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    folder = save_tiny_model(tmp_path / "tiny")
    tasks = demo_tasks()[:4]
    rows = [
        {
            "prompt": [{"role": "user", "content": task.opening}],
            "single_turn_prompt": task.single_turn_prompt,
        }
        for task in tasks
    ]
    seen = []

    class Recorded(MultiturnReward):
        async def __call__(self, prompts, completions, **columns):
            values = await super().__call__(prompts, completions, **columns)
            seen.append(values)
            return values

    entries = []

    class Log(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            entries.append(logs)

    with LocalAssistant(str(folder), max_new_tokens=8, do_sample=False) as assistant:
        reward = Recorded(
            assistant,
            lambda task, seed: RuleBasedUser.from_task(task, seed=seed),
            weights={"repetition": -1.0, "facts_elicited": 1.0},
            window=1,
            num_samples=2,
            token_penalty=0.01,
            tasks=tasks,
        )
        trainer = GRPOTrainer(
            model=str(folder),
            reward_funcs=[reward],
            args=GRPOConfig(
                output_dir=str(tmp_path / "out"),
                max_steps=2,
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=8,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,
                learning_rate=1e-3,
            ),
            train_dataset=Dataset.from_list(rows),
            callbacks=[Log()],
        )
        trainer.train()

    logged = [entry["rewards/multiturn_reward/mean"] for entry in entries if "reward" in entry]
    assert len(seen) == 2
    assert all(value is not None for values in seen for value in values)
    assert logged == pytest.approx([sum(values) / 4 for values in seen], abs=1e-5)
    assert min(min(values) for values in seen) < 0
