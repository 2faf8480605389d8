"""A made-up evaluation of any size in a folder, for what reads one."""

import json
import random
from dataclasses import replace

from collabllm.evaluation.names import transcript_file
from collabllm.evaluation.plan import Plan, Variant, choose_primary
from collabllm.evaluation.results import ArmInfo, UserInfo

ARMS = ("base", "proactive", "SFT", "SFT+DPO")
USERS = ("sharded", "hasty", "llm")
_WORDS = (
    "the party plan draft budget guests friday garden music menu letter tone deadline report table "
    "error column email team friendly short twelve people blue theme"
).split()
_FACTS = ("When is it?", "How many people come?", "What is the budget?")


def _text(random_, num_words):
    return " ".join(random_.choices(_WORDS, k=num_words)).capitalize() + "."


def make_score(arm, user, task, num_told, random_, skill, rollout=0):
    """Return a line of scores.jsonl; `skill` is how often a fact is elicited."""
    elicited = sum(random_.random() < skill for _ in range(3)) / 3
    asks = float(random_.random() < skill * (1 - num_told / 4))
    values = {
        "facts_elicited": elicited if num_told < 3 else None,
        "facts_used": round(min(1.0, elicited + 0.2 * random_.random()), 3),
        "over_asking": round(0.2 * asks * random_.random(), 3),
        "first_reply_asks": asks,
        "num_turns": float(random_.randint(1, 4)),
        "num_tokens": float(random_.randint(40, 220)),
        "seconds": round(random_.random() * 3, 2),
    }
    return {
        "arm": arm,
        "user": user,
        "num_told": num_told,
        "task_id": task + (f"+{num_told}" if num_told else ""),
        "rollout_idx": rollout,
        "termination_reason": random_.choice(["user_satisfied", "max_turns", "user_gave_up"]),
        "failed": False,
        "audit": {"repeat": random_.random() < 0.1, "leak": False},
        "replies": [{"tokens": 30, "questions": 1, "needless": 0, "facts_told": 1}] * 2,
        "values": values,
        "missing": {},
    }


def make_transcript(score, random_):
    """Return the line of a transcript file that belongs to a score."""
    topic = score["task_id"].split("+")[0]
    messages = [
        {"role": "user", "content": f"I need help with {topic}. {_text(random_, 12)}"},
        {"role": "assistant", "content": f"{_text(random_, 25)} {random_.choice(_FACTS)}"},
        {"role": "user", "content": _text(random_, 10)},
        {"role": "assistant", "content": _text(random_, 40)},
    ]
    satisfied = score["termination_reason"] == "user_satisfied"
    return {
        "task_id": score["task_id"],
        "rollout_idx": score["rollout_idx"],
        "single_turn_prompt": f"The whole of {topic}: {_text(random_, 30)}",
        "messages": messages,
        "user_turns": [{"response": "Thanks!", "is_terminal": True}] if satisfied else [],
        "termination_reason": score["termination_reason"],
        "usage": {},
        "timings": {},
        "seeds": [],
        "error": "",
        "failed": False,
        "audit": score["audit"],
        "assistant": score["arm"],
        "user": score["user"],
        "prompt_hash": "",
    }


def make_plan(arms, users, told, num_tasks, arms_info=None, **changes):
    """Return the plan of a made-up evaluation: tasks of three facts in twelve groups."""
    infos = [ArmInfo(arm, [], [], "default", "smollm2-135m-instruct") for arm in arms]
    openings = {0: "none", 3: "all"}
    variants = [
        Variant(
            f"task-{i}+{n}" if n else f"task-{i}",
            f"task-{i}",
            f"kind-{i % 12}",
            openings.get(n, "some"),
            n,
            3,
        )
        for n in told
        for i in range(num_tasks)
    ]
    plan = Plan(
        arms=arms_info or infos,
        users=[UserInfo(user, "sharded", "tells facts when asked") for user in users],
        reference=arms[0],
        metrics=["facts_elicited", "facts_used", "over_asking"],
        primary=[],
        variants=variants,
        num_rollouts=1,
        cluster_by="single_turn_metadata.kind",
        tasks="demo",
        tasks_are="development",
        test_set_uses=[],
        seed=0,
        date="2026-11-27",
        command="uv run python scripts/evaluate.py --config configs/loop_evaluate.yaml",
        versions={"collabllm": "1.0", "torch": "2.13.0"},
        commit="0123abc",
        prompt_hashes={"user_simulator": "abc"},
        signatures={},
        settings={"max_turns": 4},
        notes=[],
    )
    plan = replace(plan, **changes)
    names = [*plan.metrics, "first_reply_asks"]
    return replace(plan, primary=choose_primary([], names, [v.opening for v in variants]))


def write_evaluation(
    folder, *, arms=ARMS, users=USERS, told=(0, 1, 3), num_tasks=60, seed=0, **changes
):
    """Write plan, scores and transcripts; return the scores. Later arms elicit and ask more."""
    random_ = random.Random(seed)
    (folder / "transcripts").mkdir(parents=True)
    make_plan(arms, users, told, num_tasks, **changes).write(folder)
    scores = []
    for idx, arm in enumerate(arms):
        for user in users:
            own = [
                make_score(arm, user, f"task-{i}", n, random_, 0.15 + 0.2 * idx)
                for n in told
                for i in range(num_tasks)
            ]
            lines = [json.dumps(make_transcript(score, random_)) + "\n" for score in own]
            transcript_file(folder, arm, user).write_text("".join(lines))
            scores += own
    lines = [json.dumps(score) + "\n" for score in scores]
    (folder / "scores.jsonl").write_text("".join(lines))
    return scores
