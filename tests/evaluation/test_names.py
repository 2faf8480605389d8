"""Names of arms and users fit into files, and differ there, before anything is paid for."""

from pathlib import Path

import pytest

from collabllm.evaluation.names import check_names, transcript_file


def test_ordinary_names_pass():
    check_names(["base", "SFT+DPO", "proactive base", "größer"], ["sharded", "hasty user"])

    assert transcript_file(Path("e"), "a b", "u") == Path("e/transcripts/a b--u.jsonl")


@pytest.mark.parametrize(
    "name", ["../../../x", "a\\b", ".hidden", "", " ", "a\nb", "\ud83d", "é" * 51]
)
def test_names_that_leave_the_folder_or_fit_no_file_are_refused(name):
    with pytest.raises(ValueError, match="--user name=.*stands in file names"):
        check_names(["base"], [name])
    with pytest.raises(ValueError, match="--arm name="):
        check_names([name], ["sharded"])


def test_names_that_are_one_in_some_file_system_are_refused():
    with pytest.raises(ValueError, match="--user: 'sharded' and 'sharded' need names of their own"):
        check_names(["base"], ["sharded", "sharded"])
    with pytest.raises(ValueError, match="--arm: 'SFT' and 'sft' need names"):
        check_names(["SFT", "sft"], ["sharded"])
    with pytest.raises(ValueError, match=r"a with b--c and a--b with c would share the file"):
        check_names(["a", "a--b"], ["b--c", "c"])


def test_no_user_is_named_as_the_mean_over_them():
    check_names(["all users"], ["all", "users"])

    with pytest.raises(ValueError, match="--user name='all users': so the results call the mean"):
        check_names(["base"], ["all users", "sharded"])


def test_an_arm_is_not_named_as_the_training_of_another():
    with pytest.raises(ValueError, match="SFT with u and SFT@run-1 with u would share the file"):
        check_names(["SFT", "SFT@run-1"], ["u"], {"SFT": ["run-1", "run-2"]})
    with pytest.raises(ValueError, match="file's name is too long"):
        check_names(["SFT"], ["u"], {"SFT": ["run-" + "x" * 240]})
