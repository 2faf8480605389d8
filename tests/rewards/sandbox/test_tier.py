"""What a tier is made of: user ids of nobody else."""

import os
import subprocess

import pytest

from collabllm.rewards.sandbox import tier as tier_module
from collabllm.rewards.sandbox.tier import new_user_id


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a program an id of its own")
def test_an_id_that_another_run_uses_is_passed_over(monkeypatch):
    monkeypatch.setattr(tier_module, "_user_ids", iter(range(7, 100)))

    with subprocess.Popen(["/bin/sleep", "60"], user=40_007) as other:
        found = new_user_id(), new_user_id()
        other.kill()

    assert found == (40_008, 40_009)
