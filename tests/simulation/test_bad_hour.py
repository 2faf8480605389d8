"""A short bad hour: failing requests, a server that dies, kill -9 and a resume in one run."""

from argparse import Namespace

from benchmarks.bad_hour import run


def test_a_run_survives_faults_a_dead_server_and_kill_9(tmp_path):
    args = Namespace(num_conversations=30, concurrency=15, fault_rate=0.2, down_s=1.0, timeout_s=5)

    result = run("both", tmp_path, args)  # asserts: complete, none twice, none about another goal

    assert result.startswith("exit status 0, 30 conversations; assistant: ledger ")
    assert not list(tmp_path.glob(".*")), "no journal and no lock is left"
