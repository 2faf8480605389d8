"""Thirty tasks: every right program gets 1, every wrong one 0, every cheat 0 or tampered."""

import itertools

import pytest

from collabllm.rewards.sandbox.run import choose_tier, isolation_error
from collabllm.rewards.sandbox.tier import Limits
from collabllm.rewards.sandbox.verdict import examine
from tests.rewards.sandbox.programs import CHEATS, TASKS, cheat

pytestmark = pytest.mark.skipif(
    isolation_error() is not None, reason=f"no isolation: {isolation_error()}"
)
IDS = [task.name for task in TASKS]
_TURNS = dict(zip(IDS, itertools.cycle(CHEATS), strict=False))
LIMITS = Limits(wall_s=60, memory_bytes=2**29)  # a machine under load imports pandas in 15 s


def needs_more_than_landlock(task):
    return "/tmp" in task.right or "multiprocessing" in task.right


def outcome(program, task, tier=None):
    libraries = {"numpy", "pandas"}
    verdict = examine(
        program,
        task.test,
        task.entry_point,
        reference=task.right,
        libraries=libraries,
        limits=LIMITS,
        tier=tier,
    )
    return verdict.outcome, verdict.reason


def test_there_are_thirty():
    assert len(set(IDS)) == 30


@pytest.fixture(autouse=True)
def skip_what_the_middle_tier_lacks(request):
    task = request.node.callspec.params.get("task") if hasattr(request.node, "callspec") else None
    if task and choose_tier().name == "landlock" and needs_more_than_landlock(task):
        pytest.skip("the middle tier has no /tmp and no shared memory of the program's own")


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_a_right_program_passes(task):
    assert outcome(task.right, task) == ("passed", "")


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_a_wrong_program_fails(task):
    assert outcome(task.wrong, task)[0] == "failed"


@pytest.mark.parametrize("task", TASKS, ids=IDS)
def test_a_cheat_gets_nothing(task):
    assert outcome(cheat(_TURNS[task.name], task.entry_point), task)[0] in ("failed", "tampered")


@pytest.mark.parametrize("name", CHEATS)
@pytest.mark.parametrize("task", [TASKS[0], TASKS[20]], ids=lambda t: t.name)
def test_every_cheat_gets_nothing_from_either_kind_of_test(name, task, tier):
    assert outcome(cheat(name, task.entry_point), task, tier)[0] in ("failed", "tampered")


@pytest.mark.parametrize(
    "name", ["no assertion asserts", "failures are not added", "tests do not run"]
)
def test_patching_the_test_library_is_called_tampering(name):
    assert outcome(cheat(name, "task_func"), TASKS[0])[0] == "tampered"


@pytest.mark.parametrize("task", TASKS[20:], ids=IDS[20:])
def test_an_object_that_equals_anything_passes_no_test_from_outside(task):
    program = cheat("an object that equals anything", task.entry_point)
    assert outcome(program, task)[0] in ("failed", "tampered")
