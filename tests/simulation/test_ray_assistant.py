"""RayAssistant on a real cluster of three nodes, of which processes and a node are killed."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from collabllm import event_loop
from collabllm.cli import run_script
from collabllm.errors import ContextFullError, ServerError
from collabllm.event_loop import run
from collabllm.rewards import MultiturnReward
from collabllm.simulation import LocalAssistant, simulate
from collabllm.simulation.assistant import AssistantReply, RayAssistant
from collabllm.simulation.assistant.ray_cluster import connection
from collabllm.simulation.transcripts import read_transcripts
from collabllm.simulation.user_models.registry import to_user_spec
from collabllm.tasks import demo_tasks
from scripts.build_dataset import main as build
from scripts.evaluate import main as evaluate
from scripts.simulate_chats import main as simulate_chats
from tests.printed import ROOT
from tests.training.conftest import save_tiny_model

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # read when Ray is imported
ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


def make_slow_local():
    """Return a class that travels to the workers whole, as those of a module do not."""

    class SlowLocal(LocalAssistant):
        async def agenerate(self, messages, *, seed=None):
            await asyncio.sleep(0.2)
            return await super().agenerate(messages, seed=seed)

    return SlowLocal


def make_teller():
    class Teller:
        """Tells its process, after a while; cannot bear long conversations."""

        def __init__(self, model_path, lora_path, use_4bit):
            pass

        async def agenerate(self, messages, *, seed=None):
            if len(messages) > 9:
                raise ContextFullError("That is too long.")
            await asyncio.sleep(float(messages[-1]["content"]))
            return AssistantReply(str(os.getpid()))

    return Teller


def talk(name, pause_s, turns=1):
    first = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": name}]
    return [*first, *([{"role": "user", "content": str(pause_s)}] * turns)]


def ask(assistant, name, pause_s=0.0):
    return int(run(assistant.agenerate(talk(name, pause_s))).text)


def wait_until(is_so, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def wait_for(number, spread):
    wait_until(lambda: sum(worker.is_ready() for worker in spread._workers) >= number)


def converse(tasks, assistant, output=None):
    return simulate(
        tasks,
        assistant,
        to_user_spec("sharded").build_factory(lambda base_url: None),
        max_turns=3,
        num_rollouts=2,
        concurrency=6,
        output=output,
        progress=False,
    )


def test_a_node_killed_in_the_middle_changes_no_conversation(cluster, tiny, tmp_path):
    tasks = demo_tasks()[:8]
    options = {"max_new_tokens": 12, "do_sample": False, "dtype": "float32"}
    with LocalAssistant(tiny, **options) as local:
        expected = {(r.task_id, r.rollout_idx): r.result for r in converse(tasks, local)}

    with RayAssistant(tiny, address=cluster.address, engine=make_slow_local(), **options) as spread:
        assert len(spread._workers) == 3
        counted = spread.count_tokens("one two")
        records = []
        for record in converse(tasks, spread, tmp_path / "t.jsonl"):
            records.append(record)
            if len(records) == 2:
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    assert counted == local.count_tokens("one two")
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 16
    assert Counter((r.task_id, r.rollout_idx) for r in records) == dict.fromkeys(expected, 1)
    for record in records:
        result = expected[record.task_id, record.rollout_idx]
        assert record.result.messages == result.messages
        assert record.result.usage == result.usage
        assert record.result.termination_reason == result.termination_reason
    cluster.add_node(num_cpus=1)
    assert ray.is_initialized() is False
    assert cluster.remaining_processes_alive()


def test_a_conversation_has_its_process_and_outlives_it(cluster, tiny):
    names = [f"talk {i}" for i in range(12)]
    with RayAssistant(tiny, address=cluster.address, num_workers=2, engine=make_teller()) as spread:
        wait_for(2, spread)
        before = {name: ask(spread, name) for name in names}
        again = {name: ask(spread, name) for name in names}
        victim = before[names[0]]
        call = asyncio.run_coroutine_threadsafe(
            spread.agenerate(talk(names[0], 2)), event_loop.get_loop()
        )
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        replaced = int(call.result().text)
        deadline = time.monotonic() + 90
        while ask(spread, names[0]) == replaced and time.monotonic() < deadline:
            time.sleep(0.2)
        after = {name: ask(spread, name) for name in names}

    assert again == before
    assert len(set(before.values())) == 2
    (other,) = set(before.values()) - {victim}
    assert replaced == other
    assert len(set(after.values()) - {other}) == 1
    assert {n for n in names if after[n] == other} == {n for n in names if before[n] == other}


def test_all_processes_killed_are_only_a_delay(cluster, tiny):
    with RayAssistant(tiny, address=cluster.address, num_workers=2, engine=make_teller()) as spread:
        wait_for(2, spread)
        names = [f"talk {i}" for i in range(12)]
        before = {ask(spread, name) for name in names}
        calls = [
            asyncio.run_coroutine_threadsafe(spread.agenerate(talk(n, 1)), event_loop.get_loop())
            for n in names
        ]
        time.sleep(0.5)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        after = {int(call.result().text) for call in calls}

    assert len(before) == 2
    assert not before & after


def test_errors_of_an_engine_come_as_they_are(cluster, tiny):
    with RayAssistant(tiny, address=cluster.address, num_workers=1, engine=make_teller()) as spread:
        with pytest.raises(ContextFullError, match=r"^That is too long\.$"):
            run(spread.agenerate(talk("a", 0, turns=10)))
        with pytest.raises(ValueError, match="^could not convert string to float: 'x'$"):
            run(spread.agenerate(talk("a", "x")))
    with pytest.raises(RuntimeError, match="have stopped; make a new RayAssistant"):
        spread.generate(talk("a", 0))
    spread.close()


def test_a_model_that_does_not_load_is_the_error_of_a_local_one(cluster, tiny, tmp_path):
    wrong = ["--hf_model_path", tiny, "--lora_path", str(tmp_path / "none")]
    texts = []
    for flags in ([], ["--ray", cluster.address]):
        with pytest.raises(ValueError, match="with --lora_path .* cannot be loaded") as error:
            simulate_chats([*wrong, *flags, "--output_dir", str(tmp_path / "out")])
        texts.append(str(error.value))

    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:9", "There is no Ray cluster at 127.0.0.1:9: .*refused"),
        ("somewhere", "no Ray cluster at somewhere: an address is HOST:PORT, or auto"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_sentence(tiny, tmp_path, capsys, address, why):
    flags = ["--ray", address, "--hf_model_path", tiny, "--output_dir", str(tmp_path / "out")]

    with pytest.raises(SystemExit) as stop:
        run_script(lambda: simulate_chats(flags))

    assert stop.value.code == 2
    assert re.search(why, capsys.readouterr().err)


def test_more_workers_than_there_is_room_for_join_later(cluster, tiny, caplog):
    with RayAssistant(tiny, address=cluster.address, num_workers=4, engine=make_teller()) as spread:
        wait_for(3, spread)
        before = {ask(spread, f"talk {i}") for i in range(30)}
        cluster.add_node(num_cpus=1)
        wait_for(4, spread)
        after = {ask(spread, f"talk {i}") for i in range(30)}

    assert " of 4 Ray workers are ready" in caplog.text
    assert (len(before), len(after)) == (3, 4)


def test_no_room_at_all_is_an_error_in_time(cluster, tiny):
    with (
        RayAssistant(tiny, address=cluster.address, engine=make_teller()),
        pytest.raises(ServerError, match="No Ray worker was ready within 2 s"),
    ):
        RayAssistant(
            tiny, address=cluster.address, num_workers=1, engine=make_teller(), start_timeout_s=2
        )


def test_all_stages_take_it(cluster, tiny, tmp_path, monkeypatch):
    # The tiny model ends no sentence, so that of a cut reply nothing would be kept.
    monkeypatch.setattr("collabllm.data_engine.grow.to_last_sentence", lambda text: text)
    talking = ["--hf_model_path", tiny, "--num_tasks", "2", "--max_turns", "1"]
    talking += ["--max_new_tokens", "3", "--ray", cluster.address, "--ray_workers", "2"]

    simulate_chats([*talking, "--output_dir", str(tmp_path / "talks")])
    simulate_chats(
        [*talking, "--output_dir", str(tmp_path / "talks"), "--num_tasks", "3", "--resume"]
    )
    build(
        [
            *talking,
            "--keep_cut_replies",
            "--num_candidates",
            "2",
            "--num_samples",
            "1",
            "--output_dir",
            str(tmp_path / "b"),
        ]
    )
    evaluate(
        [*talking, "--arm", "name=base", "--num_tasks", "8", "--output_dir", str(tmp_path / "e")]
    )

    assert len((tmp_path / "talks/transcripts.jsonl").read_text().splitlines()) == 3
    assert cluster.remaining_processes_alive()


def free_cpus(cluster):
    """Return how many CPUs the cluster could give now."""
    with connection(ray, cluster.address):
        return ray.available_resources().get("CPU", 0)


def test_a_killed_driver_frees_the_cluster_and_a_resume_ends_its_run(cluster, tiny, tmp_path):
    file = tmp_path / "transcripts.jsonl"
    flags = ["--hf_model_path", tiny, "--num_tasks", "16", "--max_turns", "3", "--concurrency", "4"]
    flags += ["--max_new_tokens", "64", "--ray", cluster.address, "--output_dir", str(tmp_path)]
    driver = subprocess.Popen([sys.executable, "scripts/simulate_chats.py", *flags], cwd=ROOT)
    try:
        wait_until(lambda: file.is_file() and file.read_text().count("\n") >= 3, 300)
    finally:
        driver.kill()
        driver.wait()
    kept = read_transcripts(file)
    kept = {(talk["task_id"], talk["rollout_idx"]): talk["messages"] for talk in kept}
    wait_until(lambda: free_cpus(cluster) == 3)

    simulate_chats([*flags, "--resume"])

    talks = list(read_transcripts(file))
    messages = {(talk["task_id"], talk["rollout_idx"]): talk["messages"] for talk in talks}
    assert 3 <= len(kept) < 16
    assert len(messages) == len(talks) == 16
    assert messages | kept == messages
    assert not any(talk["failed"] for talk in talks)


def test_the_futures_of_online_training_come_from_it(cluster, tiny):
    """In an event loop of the trainer's own."""
    (task,) = demo_tasks()[:1]
    users = to_user_spec("sharded").build_factory(lambda base_url: None)
    with RayAssistant(tiny, address=cluster.address, num_workers=1, max_new_tokens=3) as spread:
        reward = MultiturnReward(
            spread, users, weights={"facts_elicited": 1.0}, window=2, num_samples=2, tasks=[task]
        )
        (estimate,) = asyncio.run(
            reward.estimate(
                [[{"role": "user", "content": task.opening or task.single_turn_prompt}]],
                ["Tell me more, please?"],
                single_turn_prompt=[task.single_turn_prompt],
            )
        )

    assert estimate.value is not None
    assert len(estimate.futures) == 2
    for future in estimate.futures:
        assert [m["role"] for m in future.messages] == ["user", "assistant"] * 3
