"""Run names, RunPod secrets, W&B and Hub checks; secrets stay out of logs and errors."""

import json
import logging
import os
from datetime import datetime

import pytest

from collabllm.hub import check_hub, prepare_hub, push_folder
from collabllm.trackers import prepare_wandb
from collabllm.training.card import UPLOADED
from collabllm.training.train_utils import (
    get_timebased_filename,
    parse_secrets_runpod,
)
from scripts.train_sft import main
from tests.fake_hub import SECRET


def test_run_names_carry_tag_and_time_and_suit_paths_and_the_hub():
    now = datetime(2026, 1, 2, 3, 4, 5)

    assert get_timebased_filename("sft-my/tag x", ".jsonl", now) == (
        "sft-my-tag-x-20260102-030405.jsonl"
    )


def test_runpod_secrets_become_tokens_and_are_not_logged(caplog):
    environ = {"RUNPOD_SECRET_HF_TOKEN": SECRET, "HF_TOKEN": "old", "WANDB_API_KEY": "kept"}

    with caplog.at_level(logging.DEBUG):
        names = parse_secrets_runpod(environ)

    assert names == ["HF_TOKEN"]
    assert environ["HF_TOKEN"] == SECRET
    assert environ["WANDB_API_KEY"] == "kept"
    assert SECRET not in caplog.text


def test_no_runpod_secret_is_an_error_and_nothing_empty_is_set():
    environ = {"RUNPOD_SECRET_HF_TOKEN": " "}

    with pytest.raises(ValueError, match="RUNPOD_SECRET_HF_TOKEN nor RUNPOD_SECRET_WANDB_API_KEY"):
        parse_secrets_runpod(environ)

    assert environ == {"RUNPOD_SECRET_HF_TOKEN": " "}


def test_without_a_login_wandb_goes_offline_and_says_how_to_sync(tmp_path, caplog):
    environ: dict[str, str] = {}

    with caplog.at_level(logging.INFO):
        prepare_wandb(str(tmp_path), environ)

    assert environ["WANDB_MODE"] == "offline"
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in caplog.text


def test_a_chosen_wandb_mode_is_kept(tmp_path):
    environ = {"WANDB_MODE": "disabled"}

    prepare_wandb(str(tmp_path), environ)

    assert environ["WANDB_MODE"] == "disabled"


def test_a_resumed_run_goes_on_with_its_wandb_run_and_the_next_has_its_own(
    sft_flags, tmp_path, monkeypatch
):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    settings = {"report_to": "wandb", "save_strategy": "steps", "save_steps": 1}
    main(sft_flags(max_steps=1, **settings))
    (tmp_path / "run/metrics.json").unlink()

    main(sft_flags(max_steps=2, resume_from_checkpoint="auto", **settings))
    main(sft_flags(max_steps=1, output_dir=tmp_path / "next", **settings))

    both, own = (
        [path.name.rpartition("-")[2] for path in (tmp_path / name / "wandb").glob("offline-run-*")]
        for name in ("run", "next")
    )
    assert both == [json.loads((tmp_path / "run/run.json").read_text())["wandb_run_id"]] * 2
    assert len(own) == 1
    assert own[0] not in both
    assert "WANDB_RUN_ID" not in os.environ


def test_a_push_creates_a_private_repository_before_training(hub):
    target = prepare_hub("auto", "sft-run-1", None, None)

    assert (target.repo_id, target.private) == ("ada/sft-run-1", True)
    assert hub.created[0]["name"] == "sft-run-1"
    assert hub.created[0].get("private", hub.created[0].get("visibility") == "private")


def test_the_users_repository_and_visibility_win(hub):
    target = prepare_hub("true", "sft-run-1", "team/model", False)

    assert (target.repo_id, target.private) == ("team/model", False)


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoint-4").mkdir(parents=True)
    (folder / "wandb").mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "README.md").write_text("# card")
    (folder / "checkpoint-4/optimizer.pt").write_bytes(b"state")
    (folder / "wandb/debug.log").write_text("log")
    return folder


def test_an_adapter_is_uploaded_without_checkpoints_and_tracker_files(hub, adapter):
    target = prepare_hub("true", "run", None, None)

    push_folder(adapter, target, "Upload adapter", UPLOADED)

    assert hub.files == {"adapter_model.safetensors": b"weights" * 1000, "README.md": b"# card"}


def test_a_run_that_stops_in_preflight_creates_no_repository(hub, sft_flags):
    with pytest.raises(ValueError, match="Nothing would train"):
        main(sft_flags(push_to_hub="true", max_length=8))

    assert hub.created == []


def test_a_resumed_run_keeps_name_and_repository(hub, sft_flags, tmp_path, caplog):
    settings = {"push_to_hub": "true", "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    main(sft_flags(run_name="my-run", **settings))
    first = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**first, "num_processes": 2}))
    (tmp_path / "run/metrics.json").unlink()

    main(sft_flags(resume_from_checkpoint="auto", **settings))

    assert "The run had 2 processes and has 1 now" in caplog.text
    assert json.loads((tmp_path / "run/run.json").read_text()) == first
    assert first.pop("data")["rows"] == 144
    assert first == {"run_name": "my-run", "hub_model_id": "ada/my-run", "num_processes": 1}
    assert {repository["name"] for repository in hub.created} == {"my-run"}
    assert "adapter_model.safetensors" in hub.files
    assert not [name for name in hub.files if "checkpoint" in name or "run.json" in name]


def test_a_token_that_may_only_read_is_refused_before_anything_else(hub, monkeypatch):
    account = {"name": "ada", "auth": {"accessToken": {"role": "read"}}}
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda self: account)

    with pytest.raises(PermissionError, match="may only read"):
        check_hub("true", "run")


def test_a_failed_upload_says_where_the_adapter_is(hub, adapter):
    target = prepare_hub("true", "run", None, None)
    hub.status = 403

    with pytest.raises(ConnectionError, match="safe in .*hf upload ada/run .*model") as error:
        push_folder(adapter, target, "Upload adapter", UPLOADED)

    assert str(error.value).endswith(
        "--repo-type model --include adapter_model.safetensors --include README.md"
    )
    assert SECRET not in str(error.value)
    assert (adapter / "adapter_model.safetensors").is_file()


def test_a_refused_token_stops_the_run_without_naming_it(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrongtoken")

    with pytest.raises(PermissionError, match="refused the token or repository .401.") as error:
        prepare_hub("auto", "run", None, None)

    assert "hf_wrongtoken" not in str(error.value)


def test_no_right_to_write_stops_the_run(hub):
    hub.status = 403

    with pytest.raises(PermissionError, match=r"\(403\).*--push_to_hub false"):
        prepare_hub("auto", "run", None, None)


def test_a_push_without_a_token_fails_at_once_and_auto_stays_local(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)

    with pytest.raises(ValueError, match="hf auth login"):
        prepare_hub("true", "run", None, None)
    assert prepare_hub("auto", "run", None, None) is None
    assert prepare_hub("false", "run", None, None) is None


def test_an_unreachable_hub_says_so(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    with pytest.raises(ConnectionError, match="cannot be reached"):
        prepare_hub("true", "run", None, None)
