"""From scores to typed results: pairing, missing values, clusters, users, seeds; arms."""

import asyncio
import json
import random
from dataclasses import replace

import pytest

from collabllm.evaluation.analysis import analyse
from collabllm.evaluation.arms import Arm, check_not_trained_on
from collabllm.evaluation.measures import measure
from collabllm.evaluation.plan import Plan, Variant, choose_primary, open_tasks, read_plan
from collabllm.evaluation.report.overview import describe, describe_answer
from collabllm.evaluation.report.tables import to_markdown
from collabllm.evaluation.results import (
    POOLED,
    ArmInfo,
    Outcome,
    UserInfo,
    read_results,
    write_results,
)
from collabllm.rewards import MetricTools, register_metric, registry
from collabllm.servers.usage import UsageLedger
from collabllm.simulation.batch import Record
from collabllm.simulation.endings import TerminationReason
from collabllm.simulation.simulator import RolloutResult
from collabllm.tasks import Fact, Task, demo_tasks

NUM_TASKS = 8


def make_plan(
    *, arms=("base", "sft"), users=("u",), seeds=(), clusters=NUM_TASKS, primary=None, rollouts=1
):
    variants = [
        Variant(f"{task}{'+3' if told else ''}", f"{task}", f"c{task % clusters}", opening, told, 3)
        for opening, told in (("none", 0), ("all", 3))
        for task in range(NUM_TASKS)
    ]
    paths = [f"outputs/{seed}" for seed in seeds]
    return Plan(
        arms=[
            ArmInfo(name, list(seeds) if name == "sft" else [], paths * (name == "sft"), "", "m")
            for name in arms
        ],
        users=[UserInfo(name, "sharded", "") for name in users],
        reference="base",
        metrics=["m"],
        primary=primary or [Outcome("m", "none")],
        variants=variants,
        num_rollouts=rollouts,
        cluster_by="kind",
        tasks="demo",
        tasks_are="development",
        test_set_uses=[],
        seed=0,
        date="",
        command="",
        versions={},
        commit="",
        prompt_hashes={},
        signatures={},
        settings={},
        notes=[],
    )


def score(arm, variant, value, *, user="u", seed="", rollout=0, missing=None, asks=0.0):
    failed = missing == "failed"
    return {
        "arm": arm,
        "training_seed": seed,
        "user": user,
        "task_id": variant.task_id,
        "rollout_idx": rollout,
        "termination_reason": "user_empty" if failed else "max_turns",
        "failed": failed,
        "audit": {"repeat": variant.task == "0"},
        "values": {"m": value, "first_reply_asks": None if failed else asks},
        "missing": {"m": missing, **({"first_reply_asks": missing} if failed else {})}
        if missing
        else {},
    }


def scores_of(plan, value_of):
    """Score every planned conversation by `value_of(arm, task number, user, seed, rollout)`."""
    return [
        score(arm.name, v, value_of(arm.name, int(v.task), user.name, seed, r), user=user.name,
              seed=seed, rollout=r)
        for arm in plan.arms
        for seed in arm.training_seeds or [""]
        for user in plan.users
        for v in plan.variants
        for r in range(plan.num_rollouts)
    ]  # fmt: skip


def plain(arm, task, user="u", seed="", rollout=0):
    """Let sft be better by 0.4, and by 0.5 in even tasks."""
    return (0.1 + 0.05 * task) + (0.4 + 0.1 * (task % 2 == 0)) * (arm == "sft")


def analysed(plan, scores):
    return analyse(plan, scores, UsageLedger())


def test_differences_are_paired_by_task_and_corrected_over_all_that_is_shown():
    plan = make_plan()

    results = analysed(plan, scores_of(plan, plain))

    (m,) = results.primary_differences()
    assert (m.arm, m.reference, m.opening, m.user) == ("sft", "base", "none", "u")
    assert m.mean == pytest.approx(0.45)
    assert m.arm_mean - m.reference_mean == pytest.approx(0.45)
    assert m.p_value == 2 / 2**8
    # Shown beside it: m@all, and first_reply_asks at both openings.
    assert m.p_corrected == pytest.approx(2 / 2**8 / 0.9)
    assert (m.wins, m.ties, m.losses, m.verdict) == (8, 0, 0, "better")
    other = results.difference("sft", "base", "u", "all", "m")
    assert not other.primary
    assert other.p_corrected > m.p_corrected
    assert results.difference("base", "sft", "u", "none", "m").mean == -m.mean
    assert results.difference("base", "sft", "u", "none", "m").verdict == "worse"


def test_results_do_not_depend_on_the_order_of_the_scores_and_survive_the_disk(tmp_path):
    plan = make_plan(users=("u", "v"))
    scores = scores_of(plan, plain)
    shuffled = random.Random(3).sample(scores, len(scores))

    results = analysed(plan, scores)

    assert analysed(plan, shuffled) == results
    write_results(tmp_path, results)
    assert read_results(tmp_path) == results
    assert results.openings == ["none", "all"]


def test_an_unfinished_arm_is_compared_on_the_tasks_that_both_have():
    plan = make_plan()
    done = {"0", "1", "2", "3", "4", "5"}
    scores = [s for s in scores_of(plan, plain) if s["arm"] == "base" or s["task_id"] in done]

    results = analysed(plan, scores)

    (m,) = results.primary_differences()
    assert (m.num_tasks, m.num_planned) == (6, 8)
    assert m.mean == pytest.approx(0.45)
    sft = results.cell("sft", "u", "none", "m")
    assert (sft.num_tasks, sft.num_missing, sft.missing_reasons) == (6, 2, {"not run": 2})
    assert sft.mean == pytest.approx(m.arm_mean)
    # The two missing values between 0 and 1; base has 0.4 and 0.45 there.
    assert m.worst_low == pytest.approx((6 * 0.45 - 0.4 - 0.45) / 8)
    assert m.worst_high == pytest.approx((6 * 0.45 + 0.6 + 0.55) / 8)
    assert not m.missing_could_change_it
    assert not results.complete
    assert "10 of 32 conversations are missing (sft with user u has 6 of 16)" in results.notes[0]


def test_an_arm_that_falls_silent_is_named():
    plan = make_plan()
    scores = scores_of(plan, plain)
    for score in [s for s in scores if s["arm"] == "sft"][:3]:
        score["termination_reason"] = "assistant_empty"

    silent = [note for note in analysed(plan, scores).notes if "saying nothing" in note]

    assert len(silent) == 1
    assert "Arm sft ended 3 of 16 conversations by saying nothing" in silent[0]
    assert silent[0].endswith("these look good in first_reply_asks.")


def test_a_missing_value_is_counted_and_not_zero():
    plan = make_plan()
    scores = scores_of(plan, plain)
    for s in scores:
        if (s["arm"], s["task_id"]) == ("sft", "7"):
            s["values"]["m"], s["missing"]["m"] = None, "judge is dead"

    cell = analysed(plan, scores).cell("sft", "u", "none", "m")

    assert (cell.num_tasks, cell.num_values) == (7, 7)
    assert cell.missing_reasons == {"judge is dead": 1}
    assert cell.worst_low < cell.mean < cell.worst_high


def test_values_of_replies_that_tampered_with_the_metric_are_counted_and_told():
    plan = make_plan()
    scores = scores_of(plan, plain)
    for s in scores:
        if s["arm"] == "sft" and s["task_id"] in ("1", "4"):
            s |= {"values": {**s["values"], "m": 0.0}, "tampered": ["m"]}

    results = analysed(plan, scores)

    assert results.cell("sft", "u", "none", "m").num_tampered == 2
    assert results.cell("base", "u", "none", "m").num_tampered == 0
    said = "m of arm sft is 0 in 2 of 8 conversations (opening: none) because a reply tampered"
    assert [note for note in results.notes if said in note]
    assert "n 8, 2 tampered" in to_markdown(results)


def test_a_value_that_is_no_number_is_missing():
    plan = make_plan()
    scores = scores_of(plan, plain)
    scores[0]["values"]["m"] = float("nan")

    cell = analysed(plan, scores).cell("base", "u", "none", "m")

    assert cell.missing_reasons == {"not a number": 1}
    assert cell.mean == pytest.approx(sum(0.1 + 0.05 * t for t in range(1, 8)) / 7)


def test_a_conversation_that_failed_makes_no_metric_apply_where_it_has_no_meaning():
    plan = make_plan()
    scores = scores_of(plan, plain)
    for s in scores:
        if s["task_id"].endswith("+3"):
            s["values"]["m"] = None  # as facts_elicited where all is told
    lost = next(i for i, s in enumerate(scores) if s["task_id"] == "2+3")
    scores[lost] = score("base", plan.variants[NUM_TASKS + 2], None, missing="failed")

    results = analysed(plan, scores)

    assert results.cell("base", "u", "all", "m") is None
    assert results.cell("base", "u", "all", "first_reply_asks").missing_reasons == {"failed": 1}
    assert [p.failed for p in results.progress] == [1, 0]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_handful_of_tasks_gives_values_and_no_interval(number):
    plan = make_plan()
    kept = {str(task) for task in range(number)}
    scores = [s for s in scores_of(plan, plain) if s["task_id"] in kept]

    results = analysed(plan, scores)

    found = results.primary_differences()
    if not number:
        assert found == []
        assert results.cells == [] or all(c.mean is None for c in results.cells)
        return
    (m,) = found
    assert (m.low, m.high, m.num_tasks) == (None, None, number)
    assert m.values == pytest.approx([0.5, 0.4][:number])
    assert m.verdict == "cannot tell"
    assert results.cell("sft", "u", "none", "m").values == pytest.approx([0.6, 0.55][:number])
    said = {1: "1 independent cluster of tasks", 2: "2 independent clusters of tasks"}[number]
    said = f"m (none told) has only {said}: too few for an interval, and no test can reach p < 0.05"
    assert [note for note in results.notes if said in note]
    tables = to_markdown(results)
    assert ("0.57 (0.60, 0.55), n 2 of 8" in tables) == (number == 2)
    assert ("+0.45 (+0.50, +0.40)" in tables) == (number == 2)
    assert (", n 1 of 8" in tables) == (number == 1)


def test_tasks_of_a_cluster_are_not_independent():
    alone, clustered = make_plan(), make_plan(clusters=2)

    independent = analysed(alone, scores_of(alone, plain)).primary_differences()[0]
    dependent = analysed(clustered, scores_of(clustered, plain))

    (m,) = dependent.primary_differences()
    assert (m.num_clusters, m.low, m.verdict) == (2, None, "cannot tell")
    assert (independent.num_clusters, m.p_value) == (8, 0.5)
    assert any("There are only 2 clusters of tasks" in note for note in dependent.notes)
    single = make_plan(clusters=1)
    notes = analysed(single, scores_of(single, plain)).notes
    assert any("There is only 1 cluster of tasks (by kind): too few" in note for note in notes)


def test_users_are_pooled_and_a_change_of_ranks_is_told():
    def value(arm, task, user, seed, rollout):
        return 0.3 + 0.05 * task + (0.2 if user == "u" else -0.1) * (arm == "sft")

    plan = make_plan(users=("u", "v"))

    results = analysed(plan, scores_of(plan, value))

    (m,) = results.primary_differences()
    assert (m.user, m.num_tasks) == (POOLED, 8)
    assert m.mean == pytest.approx(0.05)
    (ranking,) = results.rankings
    assert ranking.by_user == {
        POOLED: ["sft", "base"],
        "u": ["sft", "base"],
        "v": ["base", "sft"],
    }
    assert ranking.changes
    assert any("u: sft > base; v: base > sft" in note for note in results.notes)


def test_one_lucky_training_of_three_is_no_effect():
    def value(arm, task, user, seed, rollout):
        return 0.2 + 0.02 * task + (0.6 if seed == "s1" else 0.0)

    plan = make_plan(seeds=("s1", "s2", "s3"))
    lucky = make_plan(seeds=("s1",))

    several = analysed(plan, scores_of(plan, value))
    one = analysed(lucky, scores_of(lucky, value))

    assert several.primary_differences()[0].mean == pytest.approx(0.2)
    assert several.primary_differences()[0].verdict == "cannot tell"
    assert several.primary_differences()[0].test == "t over tasks and seeds"
    assert one.primary_differences()[0].verdict == "better"
    assert any("sft is one training" in note for note in one.notes)


def test_a_training_that_has_no_partner_decides_nothing():
    plan = make_plan(seeds=("s1", "s2"))
    more = ArmInfo("more", ["a", "b", "c"], ["x/a", "x/b", "x/c"], "", "m")
    plan.arms.append(more)

    def value(arm, task, user, seed, rollout):
        return 0.2 + 0.02 * task + 0.1 * (seed in ("s1", "b")) + 0.3 * (arm == "more")

    scores = [s for s in scores_of(plan, value) if s["training_seed"] != "c"]  # not run yet

    found = analysed(plan, scores).difference("more", "sft", "u", "none", "m")

    assert (found.num_tasks, found.mean) == (NUM_TASKS, pytest.approx(0.3))


def test_nothing_is_said_of_what_could_be_shown_where_no_task_differs_or_trainings_are_several():
    def none(arm, task, user, seed, rollout):
        return 0.0

    def detectable(plan, value):
        scores = scores_of(plan, value)
        for s in scores:
            s["values"]["num_tokens"] = 50.0 + (s["arm"] == "sft") * (len(s["task_id"]) + 3.0)
        return {d.smallest_detectable for d in analysed(plan, scores).differences}

    assert detectable(make_plan(), none) == {None}
    several = make_plan(seeds=("s1", "s2", "s3"))
    assert detectable(several, none) == {None}
    assert detectable(several, lambda arm, task, *_: 0.1 * (task % 3) * (arm == "sft")) == {None}


def test_more_errors_of_a_metric_of_ones_own_are_worse_also_where_it_is_not_registered(
    tmp_path, monkeypatch
):
    async def count_errors(conversation, task, tools):
        return 0.0

    with monkeypatch.context() as patched:
        patched.setattr(registry, "_METRICS", dict(registry._METRICS))
        register_metric("m", count_errors, highest=None, lower_is_better=True)
        make_plan().write(tmp_path)
    plan = read_plan(tmp_path)

    results = analysed(plan, scores_of(plan, plain))

    (m,) = results.primary_differences()
    assert (m.verdict, m.wins, m.losses) == ("worse", 0, NUM_TASKS)
    assert results.rankings[0].by_user["u"] == ["base", "sft"]
    assert not results.metrics[0].bounded  # though all values seen lie in [0, 1]


def test_a_plan_from_before_directions_were_kept_takes_those_of_its_metrics(tmp_path):
    replace(make_plan(), metrics=["m", "over_asking"]).write(tmp_path)
    file = tmp_path / "plan.json"
    kept = json.loads(file.read_text())
    del kept["lower_is_better"], kept["without_limits"]
    file.write_text(json.dumps(kept))

    assert read_plan(tmp_path).lower_is_better == ["over_asking"]


def test_a_primary_outcome_without_values_is_told():
    plan = make_plan(primary=[Outcome("m", "none"), Outcome("m", "all")])
    of_opening = {v.task_id: v.opening for v in plan.variants}
    scores = scores_of(plan, plain)
    for s in scores:
        if of_opening[s["task_id"]] == "all":
            s["values"]["m"] = None  # it does not apply

    results = analysed(plan, scores)

    assert (
        "The primary outcome m@all has no value in any task for both base and sft: nothing is said "
        "of it."
    ) in results.notes
    assert "where nothing is missing has no value" in describe_answer(results)


def test_what_does_not_apply_to_a_finished_conversation_is_not_called_not_run():
    plan = make_plan()
    scores = scores_of(plan, plain)
    for s in scores:
        if s["arm"] == "sft" and s["task_id"] in ("0", "1", "2"):
            s["values"]["m"] = None  # without a reason: it does not apply

    results = analysed(plan, scores)

    cell, (m,) = results.cell("sft", "u", "none", "m"), results.primary_differences()
    assert results.complete
    assert cell.missing_reasons == {"does not apply": 3}
    assert cell.worst_low == cell.worst_high == pytest.approx(cell.mean)
    assert m.worst_low == m.worst_high == pytest.approx(m.mean)
    assert (
        "m (none told) does not apply to a number of conversations that differs between arms (0 of "
        "base, 3 of sft): it says nothing of these."
    ) in results.notes


def test_what_could_be_shown_of_a_binary_outcome_is_what_its_test_would_find():
    plan = make_plan()

    def value(arm, task, *_):
        return float(arm == "sft" and task < 3)

    results = analysed(plan, scores_of(plan, value))

    (m,) = results.primary_differences()
    # At 0.045 six of eight tasks must differ, all one way; at 0.801 each they do in 80%.
    assert (m.test, m.reference_mean) == ("McNemar", 0.0)
    assert m.smallest_detectable == pytest.approx(0.801, abs=0.001)


def test_what_could_be_shown_of_a_graded_outcome_is_what_its_test_would_find():
    plan = make_plan()

    def value(arm, task, *_):
        return 0.1 + 0.1 * (task % 4) * (arm == "sft")

    scores = scores_of(plan, value)
    for s in scores:
        s["values"]["num_tokens"] = 50.0 + (s["arm"] == "sft") * int(s["task_id"][0])
    results = analysed(plan, scores)

    (m,) = results.primary_differences()
    # A spread of 0.1195 between tasks; at 0.045 eight of them show 1.24 of it, by a t-test 1.21.
    assert m.test == "sign flips"
    assert m.smallest_detectable == pytest.approx(0.1195 * 1.24, abs=0.002)
    tokens = [d for d in results.differences if d.metric == "num_tokens"]
    assert {d.smallest_detectable for d in tokens} == {None}  # nothing tests them


def test_few_tasks_show_nothing_however_many_trainings_there_are():
    def value(arm, task, user, seed, rollout):
        return 0.1 + (0.5 + 0.01 * (task + (seed == "s1")) % 3) * (arm == "sft")

    plan = make_plan(seeds=("s1", "s2", "s3"), clusters=3)

    (m,) = analysed(plan, scores_of(plan, value)).primary_differences()

    assert (m.low, m.verdict, m.test) == (None, "cannot tell", "sign flips")


def test_the_answer_says_how_many_tasks_its_differences_have():
    plan = make_plan(clusters=7)
    scores = scores_of(plan, plain)
    for s in scores:
        if s["task_id"] in ("5", "6", "7") and s["arm"] == "sft":
            s["values"]["m"], s["missing"]["m"] = None, "judge is dead"

    results = analysed(plan, scores)

    assert results.complete
    assert describe_answer(results).endswith("; 5 of 8 tasks in 5 of 7 groups.")
    base, sft = describe(results, {}, {})["outcomes"][0]["rows"]
    assert base["mean"].startswith("0.28 ")
    assert sft["shared"] == "base has 0.20 here"


def test_different_numbers_of_trainings_are_told_as_they_are_compared():
    plan = make_plan(seeds=("s1", "s2"))
    for number in (3, 5):
        seeds = [f"{number}-{i}" for i in range(number)]
        plan.arms.append(ArmInfo(f"arm {number}", seeds, seeds, "", "m"))

    notes = " ".join(analysed(plan, scores_of(plan, plain)).notes)

    assert "as many as the one with fewer has" in notes


def test_a_name_stays_in_its_cell_of_the_tables():
    plan = make_plan(arms=("base", "a|b"))

    tables = to_markdown(analysed(plan, scores_of(plan, plain)))

    assert "| a\\|b |" in tables


def test_repeats_give_a_noise_floor_and_are_no_new_tasks():
    def value(arm, task, user, seed, rollout):
        return float(rollout)

    plan = make_plan(rollouts=2)

    cell = analysed(plan, scores_of(plan, value)).cell("base", "u", "none", "m")

    assert (cell.num_tasks, cell.num_values) == (8, 16)
    # Each task 0 and 1: variance 0.5, of the mean of two 0.25, of 8 tasks 0.25 / 8.
    assert cell.noise_floor == pytest.approx((0.25 / 8) ** 0.5)


def test_the_asking_curve_goes_by_the_share_of_facts_that_is_told():
    plan = make_plan()

    points = analysed(plan, scores_of(plan, plain)).asking

    assert [(p.arm, p.share_told, p.mean) for p in points] == [
        ("base", 0.0, 0.0),
        ("sft", 0.0, 0.0),
        ("base", 1.0, 0.0),
        ("sft", 1.0, 0.0),
    ]
    assert points[0].high == pytest.approx(0.324, abs=1e-3)  # Wilson's of 0 in 8


def test_simulator_faults_and_endings_are_counted():
    plan = make_plan()

    results = analysed(plan, scores_of(plan, plain))

    assert results.audit == {"u": {"repeat": 0.125}}
    assert results.endings[0].counts == {"max_turns": 8}


def test_users_are_ranked_by_their_faults_and_shown_with_how_they_talk():
    plan = make_plan(users=("leaky", "long"))
    scores = [
        {
            **score,
            "audit": {"repeat": score["user"] == "leaky"},
            "user_measures": {"message_words": 90.0 if score["user"] == "long" else 3.0},
        }
        for score in scores_of(plan, plain)
    ]

    audit = analysed(plan, scores).audit

    assert list(audit.items()) == [
        ("long", {"message_words": 90.0, "repeat": 0.0}),
        ("leaky", {"message_words": 3.0, "repeat": 1.0}),
    ]


def test_an_opening_is_complete_only_when_it_tells_every_fact_of_its_task():
    facts = tuple(Fact(n, f"It is {n}.", value=n) for n in ("red", "big", "new"))
    tasks = [
        Task("three", "goal", opening="Hi", facts=facts),
        Task("one", "other", opening="Hello", facts=facts[:1]),
        Task("clear", "Do it.", opening="Do it."),
        Task("unknown", "Solve this", opening="Help"),
    ]

    opened = open_tasks(tasks, [0, 1, 3, "all"], "single_turn_prompt")

    found = {v.task_id: (v.opening, v.share_told) for _, v in opened}
    assert found == {
        "three": ("none", 0.0),
        "one": ("none", 0.0),
        "clear": ("all", 1.0),
        "unknown": ("unasked", 0.0),
        "three+1": ("some", 1 / 3),
        "one+1": ("all", 1.0),
        "three+3": ("all", 1.0),
    }


def test_two_tasks_whose_openings_have_one_name_are_refused():
    facts = tuple(Fact(name, f"It is {name}.") for name in "xyz")
    tasks = [Task("a", "A", facts=facts), Task("a+3", "B", facts=facts)]

    with pytest.raises(ValueError, match=r"'a\+3' and 'a' both have an opening .* 'a\+3'; rename"):
        open_tasks(tasks, [0, "all"], "single_turn_prompt")


def test_the_plan_of_another_version_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text('{"arms": []}')

    with pytest.raises(ValueError, match=r"plan\.json: is the plan of another version"):
        read_plan(tmp_path)


def test_primary_outcomes_are_one_for_need_and_one_for_needlessness():
    metrics = ["facts_elicited", "over_asking", "first_reply_asks", "seconds"]

    assert choose_primary([], metrics, ["none", "all"]) == [
        Outcome("facts_elicited", "none"),
        Outcome("first_reply_asks", "all"),
    ]
    assert choose_primary([], ["accuracy", "first_reply_asks"], ["unasked"]) == [
        Outcome("accuracy", "unasked")
    ]
    assert choose_primary(["over_asking@none"], metrics, ["none"]) == [
        Outcome("over_asking", "none")
    ]
    for wrong in ("over_asking", "over_asking@all", "seconds@none", "nothing@none"):
        with pytest.raises(ValueError, match="must be METRIC@OPENING"):
            choose_primary([wrong], metrics, ["none"])


def test_arms_are_read_from_flags_and_mappings():
    assert Arm.read("name=base") == Arm.read({"name": "base"}) == Arm("base")
    assert Arm.read("name=a,lora_path=x/y,system_prompt=proactive") == Arm("a", "x/y", "proactive")
    said = Arm.read("name=a,system_prompt=Be brief, and kind.")
    assert said.system_prompt == "Be brief, and kind."
    assert Arm.read("name=r,model=gpt-4o,base_url=http://h/v1").base_url == "http://h/v1"
    several = '{"name": "r", "model": "m", "base_url": ["http://a/v1", "http://b/v1"]}'
    assert Arm.read(several).base_url == ["http://a/v1", "http://b/v1"]
    for wrong in ("lora_path=x", "name=a,lora=x", "base"):
        with pytest.raises(ValueError, match="--arm"):
            Arm.read(wrong)
    assert Arm("p", system_prompt="proactive").prompt("d").startswith("You help the user")
    assert Arm("n", system_prompt="none").prompt("d") == ""
    assert Arm("d").prompt("d") == "d"


def test_an_adapter_must_be_there_and_a_pattern_finds_trainings(tmp_path):
    for name in ("run-1", "run-2", "run-x"):
        (tmp_path / name).mkdir()
    for name in ("run-1", "run-2"):
        (tmp_path / name / "adapter_config.json").write_text("{}")

    found = Arm("sft", f"{tmp_path}/run-*").to_info("model")

    assert found.training_seeds == ["run-1", "run-2"]
    assert found.lora_paths == [str(tmp_path / "run-1"), str(tmp_path / "run-2")]
    assert Arm("sft", f"{tmp_path}/run-1").to_info("model").training_seeds == []
    assert Arm("h", "hub-user/adapter").to_info("model").lora_paths == ["hub-user/adapter"]
    with pytest.raises(FileNotFoundError, match="--arm a: there is no adapter"):
        Arm("a", str(tmp_path)).to_info("model")
    with pytest.raises(FileNotFoundError, match="--arm a: no folder with an adapter fits"):
        Arm("a", f"{tmp_path}/none-*").to_info("model")


def make_adapter(folder, **config):
    folder.mkdir()
    settings = {
        "hf_dataset_path": "demo",
        "dataset_split": "train",
        "split_by": "single_turn_metadata.kind",
        "eval_ratio": 0.2,
        **config,
    }
    (folder / "train_config.yaml").write_text(json.dumps(settings))
    (folder / "adapter_config.json").write_text("{}")
    return str(folder)


def test_tasks_of_the_training_are_refused(tmp_path):
    from collabllm.tasks import choose_side

    arm = Arm("sft", make_adapter(tmp_path / "sft")).to_info("model")
    held_out = choose_side(demo_tasks(), "eval", 0.2, "single_turn_metadata.kind")

    assert check_not_trained_on(arm, held_out) == []
    with pytest.raises(ValueError, match=r"trained on [0-9]+ of [0-9]+ tasks .*--held_out_of"):
        check_not_trained_on(arm, demo_tasks())


def test_an_adapter_whose_training_is_unknown_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copied = make_adapter(tmp_path / "copied", hf_dataset_path="elsewhere/data.jsonl")
    unread = Arm("copied", copied).to_info("model")
    from_hub = ArmInfo("hub", [], ["someone/adapter"], "default", "model")
    base = ArmInfo("base", [], [], "default", "model")

    (of_copied,) = check_not_trained_on(unread, demo_tasks())
    (of_hub,) = check_not_trained_on(from_hub, demo_tasks())

    assert f"not checked against the training of arm copied ({copied})" in of_copied
    assert "arm hub (someone/adapter)" in of_hub
    assert check_not_trained_on(base, demo_tasks()) == []


def test_tasks_without_the_column_of_the_split_are_known_by_their_goals(tmp_path):
    arm = Arm("sft", make_adapter(tmp_path / "sft")).to_info("model")
    bare = [Task(str(idx), task.single_turn_prompt) for idx, task in enumerate(demo_tasks())]

    with pytest.raises(ValueError, match=r"trained on [0-9]+ of [0-9]+ tasks .*--held_out_of"):
        check_not_trained_on(arm, bare)


def test_a_training_with_nothing_to_compare_by_is_told(tmp_path):
    data = tmp_path / "other.jsonl"
    row = {"prompt": [{"role": "user", "content": "x"}], "completion": "y", "conv_id": 0}
    data.write_text(json.dumps({**row, "score": 1.0}) + "\n")
    arm = Arm("sft", make_adapter(tmp_path / "sft", hf_dataset_path=str(data))).to_info("model")

    (note,) = check_not_trained_on(arm, demo_tasks())

    assert "no column in common with the tasks" in note


def test_the_trainings_that_an_adapter_continues_are_checked_too(tmp_path):
    sft = make_adapter(tmp_path / "sft")
    harmless = tmp_path / "other.jsonl"
    row = {"prompt": [{"role": "user", "content": "x"}], "completion": "y", "conv_id": 0}
    harmless.write_text(json.dumps({**row, "score": 1.0}) + "\n")
    dpo = make_adapter(tmp_path / "dpo", hf_dataset_path=str(harmless), lora_path=sft)

    with pytest.raises(ValueError, match="Arm dpo was trained on"):
        check_not_trained_on(Arm("dpo", dpo).to_info("model"), demo_tasks())


def test_whether_the_first_reply_asks_does_not_apply_where_the_reference_has_questions():
    task = Task("quiz", "Make a quiz.", "What is 2 + 2?")
    messages = [
        {"role": "user", "content": "Make a quiz."},
        {"role": "assistant", "content": "What is 3 + 3?"},
    ]
    result = RolloutResult(messages, [], TerminationReason.MAX_TURNS)
    record = Record("quiz", 0, result, {}, "", "", "", "")

    quiz = asyncio.run(measure(record, task, [], MetricTools()))["first_reply_asks"]
    plan = asyncio.run(measure(record, replace(task, single_turn_completion="Cake."), [],
                               MetricTools()))["first_reply_asks"]  # fmt: skip

    assert (quiz.value, quiz.applicable) == (None, False)
    assert plan.value == 1.0
