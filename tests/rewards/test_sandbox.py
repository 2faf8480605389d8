"""Right programs get 1 whatever stands around them; what could not be tried is missing, not 0."""

import asyncio
import logging

import pytest

from collabllm.rewards import (
    Future,
    MetricTools,
    RewardEstimate,
    RewardSettings,
    lint_rewards,
)
from collabllm.rewards.metrics import code as code_module
from collabllm.rewards.registry import score_conversation
from collabllm.rewards.sandbox import run as run_module
from collabllm.rewards.sandbox import verdict as verdict_module
from collabllm.rewards.sandbox.process import SandboxFailedError
from collabllm.rewards.sandbox.run import (
    Limits,
    SandboxUnavailableError,
    check_isolation,
    isolation_error,
    run_program,
)
from collabllm.tasks import Task

isolated = pytest.mark.skipif(
    isolation_error() is not None, reason=f"no isolation: {isolation_error()}"
)
RIGHT = "def f(x):\n    return x + 1"
BLOCK = f"```python\n{RIGHT}\n```"
UNITTEST = (
    "import unittest\nclass TestCases(unittest.TestCase):\n"
    "    def test_one(self):\n        self.assertEqual(f(1), 2)\n"
)
CHECK = "def check(candidate):\n    assert candidate(1) == 2"


def pass_rate(*replies, test="assert f(1) == 2", solution="", name="pass_rate", **metadata):
    task = Task("t", "goal", solution, metadata={"test": test, **metadata})
    talk = []
    for reply in replies:
        talk += [{"role": "user", "content": "q"}, {"role": "assistant", "content": reply}]
    return asyncio.run(score_conversation(talk, task, [name], MetricTools()))[name]


@isolated
@pytest.mark.parametrize(
    "test", ["assert f(1) == 2", CHECK, UNITTEST, "def test_f():\n    assert f(1) == 2"]
)
def test_statements_functions_and_unittest_classes_decide(test):
    assert pass_rate(BLOCK, test=test, entry_point="f").value == 1.0
    assert pass_rate("```\ndef f(x):\n    return x\n```", test=test, entry_point="f").value == 0.0


@isolated
@pytest.mark.parametrize(
    "around",
    [
        f"```python\n{RIGHT}\nprint('x' * 5000)\n```",
        f"```python\nimport unittest\n{RIGHT}\n"
        "if __name__ == '__main__':\n    unittest.main()\n```",
        f"```python\nimport sys\n{RIGHT}\ndef main():\n    return 1\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n```",
        f"```python\n{RIGHT}\nprint(f(int(input('n? '))))\n```",
        f"```python\n{RIGHT}\nopen('/tmp/log.txt', 'w').write('x')\n```",
        f"{BLOCK}\nFor example:\n```python\nprint(f(3))\n```",
        f"{BLOCK}\nRun it:\n```bash\npython solution.py\n```\nIt prints:\n```\n4\n```",
        "```python\nimport os\nONE = 1\n```\nand\n```python\ndef f(x):\n    return x + ONE\n```",
        "1. First:\n   ```python\n   def f(x):\n       return x + 1\n   ```\n2. Done.",
        f"```python\nimport numpy\n{RIGHT}\n```",
        RIGHT,
    ],
    ids=[
        "much output",
        "a guard with unittest.main",
        "a guard with sys.exit",
        "input at the end",
        "a file in /tmp",
        "an example after it",
        "a shell command after it",
        "in two blocks",
        "an indented block",
        "numpy",
        "no fence",
    ],
)
def test_a_right_program_gets_one_whatever_stands_around_it(around):
    if "/tmp" in around and run_module.choose_tier().name != "bubblewrap":
        pytest.skip("the middle tier has no /tmp of the program's own")
    assert pass_rate(around).value == 1.0
    assert pass_rate(around, test=UNITTEST, entry_point="f").value == 1.0


@isolated
def test_the_last_program_of_the_conversation_counts():
    wrong = "```python\ndef f(x):\n    return x\n```"

    assert pass_rate(BLOCK, "You are welcome!").value == 1.0
    assert pass_rate(wrong, BLOCK, "Use `f`:\n```python\nf(2)\n```").value == 1.0
    assert pass_rate(BLOCK, wrong).value == 0.0
    assert pass_rate(wrong, BLOCK, name="code->pass_rate").value == 1.0
    assert pass_rate("not code at all").value == 0.0


@isolated
def test_a_missing_library_is_missing_where_the_task_names_it():
    needs = f"```python\nimport no_such_library\n{RIGHT}\n```"

    assert pass_rate(needs).value == 0.0  # else a bad program would hide behind any import
    assert pass_rate(needs, test=UNITTEST).value == 0.0
    tests_need = pass_rate(BLOCK, test="import no_such_library\nassert f(1) == 2")
    assert "the tests need no_such_library" in tests_need.reason
    named = pass_rate(needs, libs="['no_such_library']", test=UNITTEST)
    assert (named.value, named.reason) == (None, "no_such_library is not installed")
    other = pass_rate(needs, libs="['another_library']")
    assert other.value == 0.0
    feigned = "```python\n# import no_such_library\nraise ModuleNotFoundError('x', name='x')\n```"
    assert pass_rate(feigned, libs="['no_such_library']").value == 0.0


@isolated
def test_a_task_whose_own_solution_does_not_pass_has_no_value():
    broken = "def f(x):\n    return x"
    wrong = "```python\ndef f(x):\n    return object()\n```"

    assert pass_rate(BLOCK, solution=broken).value == 1.0
    value = pass_rate(wrong, solution=broken)
    assert (value.value, value.reason[:40]) == (None, "the task's own solution does not pass: A")
    assert pass_rate(wrong, solution=RIGHT).value == 0.0
    assert pass_rate(wrong, solution="Add one to it.").value == 0.0


@isolated
def test_a_failed_sandbox_is_missing(monkeypatch):
    def fail(*args, **kwargs):
        raise SandboxFailedError("bubblewrap: no space left")

    monkeypatch.setattr(verdict_module, "watch", fail)

    value = pass_rate(BLOCK)

    assert (value.value, value.reason) == (None, "bubblewrap: no space left")


@isolated
def test_an_exit_status_of_the_program_is_no_failed_sandbox():
    assert pass_rate("```\nimport sys\nsys.exit(120)\n```").value == 0.0
    assert run_program("import sys\nsys.exit(120)").exit_status == 120


@isolated
def test_linear_algebra_has_one_thread_whatever_cores_there_are():
    if run_module.choose_tier().name != "bubblewrap":
        pytest.skip("the middle tier has no /proc to count threads in")
    program = "import numpy, os\na = numpy.ones((300, 300))\na @ a\n"

    counted = run_program(program + "print(len(os.listdir('/proc/self/task')))")

    assert counted.output == "1"


@isolated
def test_tampering_is_zero_and_counted():
    cheat = "```python\nimport unittest\nunittest.TestCase.assertEqual = print\ndef f(x): pass\n```"
    values = [pass_rate(reply, test=UNITTEST) for reply in (cheat, BLOCK)]

    assert (values[0].value, values[0].reason.split(":")[0]) == (0.0, "tampered")
    assert [value.is_tampered for value in values] == [True, False]
    futures = [Future([], "max_turns", {"pass_rate": value}, 1, 0.0, 0) for value in values * 3]
    found = lint_rewards([[RewardEstimate("r", futures)]], RewardSettings({"pass_rate": 1.0}))
    assert "3 values are 0 because a reply tampered with the metric." in found.warnings


@isolated
def test_tests_that_cannot_be_run_are_missing():
    assert "entry_point" in pass_rate(BLOCK, test=CHECK).reason
    assert "no Python" in pass_rate(BLOCK, test="assert f(1) ==").reason
    assert "StringIO" in pass_rate(BLOCK, test="import io\nassert f(io.StringIO()) == 2").reason
    assert pass_rate("```\nx = 1\n```", test="").applicable is False


@isolated
def test_two_thousand_lists_come_back_as_they_are():
    value = pass_rate(
        "```python\ndef f(n):\n    return [[i, {'k': (i, None)}] for i in range(n)]\n```",
        test="assert f(2000)[-1] == [1999, {'k': (1999, None)}]",
    )
    assert value.value == 1.0


@isolated
def test_ten_programs_at_once_do_not_disturb_one_another():
    async def many():
        talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": BLOCK}]
        tasks = [
            Task(str(i), "goal", metadata={"test": f"assert f({i}) == {i + 1}"}) for i in range(10)
        ]
        runs = (score_conversation(talk, task, ["pass_rate"], MetricTools()) for task in tasks)
        return [values["pass_rate"].value for values in await asyncio.gather(*runs)]

    assert asyncio.run(many()) == [1.0] * 10


def test_without_isolation_it_refuses_unless_the_user_insists(monkeypatch):
    monkeypatch.setattr(run_module, "tier_error", lambda tier: f"no {tier.name} here")

    with pytest.raises(SandboxUnavailableError, match=r"no landlock here.*--allow_unsafe_code"):
        run_program("print(1)")
    assert run_program("print(1)", allow_unsafe=True).output == "1"
    assert not run_program("while True: pass", Limits(20, 1), allow_unsafe=True).finished


def test_the_tier_and_why_it_is_not_a_better_one_are_said_in_one_line(monkeypatch, caplog):
    def error(tier):
        return "bubblewrap is not installed" if tier.name == "bubblewrap" else None

    monkeypatch.setattr(run_module, "tier_error", error)
    run_module._say_tier.cache_clear()

    with caplog.at_level(logging.INFO):
        check_isolation()
        check_isolation()

    (line,) = [r.getMessage() for r in caplog.records if "Model-written" in r.getMessage()]
    assert "in the tier 'landlock'" in line
    assert "bubblewrap: bubblewrap is not installed" in line


def test_the_metric_says_which_program_it_takes():
    talk = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": f"{BLOCK}\n```python\nassert f(1) == 2\n```"},
        {"role": "user", "content": "thanks"},
        {"role": "assistant", "content": "```bash\nls\n```"},
    ]
    assert code_module.find_program(talk, {"f"}) == RIGHT
