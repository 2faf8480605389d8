"""The Hugging Face Hub: check the right to write before a run, and upload when it is over."""

import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

logger = logging.getLogger(__name__)

BUNDLED_MODEL = "smollm2-135m-instruct"
_TIMEOUT_S = 10
_REMEDY = "Check HF_TOKEN and its write permission, or use --push_to_hub false."


@dataclass(frozen=True)
class HubTarget:
    """A repository that the token may write."""

    repo_id: str
    private: bool
    repo_type: str = "model"


def prepare_hub(
    push_to_hub: str,
    run_name: str,
    hub_model_id: str | None = None,
    private: bool | None = None,
    repo_type: str = "model",
) -> HubTarget | None:
    """Check the token and create the repository to push to; None for no push.

    Args and errors: those of `check_hub` and `create_repository`.
    """
    hub = check_hub(push_to_hub, run_name, hub_model_id, private, repo_type)
    if hub:
        create_repository(hub)
    return hub


def check_hub(
    push_to_hub: str,
    run_name: str,
    hub_model_id: str | None = None,
    private: bool | None = None,
    repo_type: str = "model",
) -> HubTarget | None:
    """Check the token and name the repository to push to; None for no push. Nothing is created.

    Args:
        push_to_hub: `auto` (push when a token is found), `true` or `false`.
        run_name: Name of the repository when `hub_model_id` is None.
        hub_model_id: `user/name` or `name`.
        private: Visibility of a new repository; private by default.
        repo_type: `model` or `dataset`.

    Raises:
        ValueError: If a push was asked for and there is no token.
        PermissionError: If the Hub refuses the token, or the token may only read.
        ConnectionError: If the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    if push_to_hub == "false":
        return None
    if not get_token():
        if push_to_hub == "true":
            raise ValueError(
                "--push_to_hub needs a Hugging Face token: run `hf auth login`, set HF_TOKEN, "
                "or use --push_to_hub false."
            )
        logger.info("No Hugging Face token found: the result stays local.")
        return None
    with _hub_errors():
        account = HfApi().whoami()
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError(f"The Hub token may only read. {_REMEDY}")
    repo_id = hub_model_id or run_name
    repo_id = repo_id if "/" in repo_id else f"{account['name']}/{repo_id}"
    return HubTarget(repo_id, True if private is None else private, repo_type)


def create_repository(hub: HubTarget) -> None:
    """Create the repository, unless it is there, which proves the right to write it.

    Raises:
        PermissionError: If the Hub refuses the repository.
        ConnectionError: If the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    with _hub_errors():
        HfApi().create_repo(
            hub.repo_id, private=hub.private, exist_ok=True, repo_type=hub.repo_type
        )
    logger.info("The result will be pushed to %s.", hub.repo_id)


@contextmanager
def _hub_errors() -> Iterator[None]:
    """Turn errors of the Hub into ones that name no token."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise PermissionError(
            f"The Hub refused the token or repository ({status}). {_REMEDY}"
        ) from None
    except (OSError, _http_error()) as error:
        raise ConnectionError(
            f"The Hub cannot be reached ({type(error).__name__}). {_REMEDY}"
        ) from None


def push_folder(folder: Path, hub: HubTarget, message: str, allow: Sequence[str]) -> None:
    """Upload files of a folder.

    Args:
        folder: What to upload.
        hub: Target from `prepare_hub`.
        message: Message of the commit.
        allow: Names and patterns of the files to upload; all others stay.

    Raises:
        ConnectionError: If the upload fails; the local folder stays as it is.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().upload_folder(
            repo_id=hub.repo_id,
            repo_type=hub.repo_type,
            folder_path=folder,
            allow_patterns=list(allow),
            commit_message=message,
        )
    except (OSError, _http_error()) as error:
        words = ["hf", "upload", hub.repo_id, str(folder), "--repo-type", hub.repo_type]
        for name in allow:
            words += ["--include", name] if any(folder.glob(name)) else []
        raise ConnectionError(
            f"The upload to {hub.repo_id} failed ({type(error).__name__}). All is safe in "
            f"{folder}; upload it with: {shlex.join(words)}"
        ) from None
    logger.info("Pushed to %s.", hub.repo_id)


def read_adapter_config(path: str) -> dict[str, Any]:
    """Read the configuration of a LoRA adapter in a local folder or on the Hub.

    Raises:
        FileNotFoundError: If there is none.
    """
    file = find_adapter_file(path, "adapter_config.json")
    return cast("dict[str, Any]", json.loads(file.read_text(encoding="utf-8")))


def find_adapter_file(path: str, name: str) -> Path:
    """Return the path of a file of an adapter, from the Hub if it is no local folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    file = Path(path).expanduser() / name
    if file.is_file():
        return file
    missing = f"{path}: there is no adapter ({name}) in it."
    if looks_local(path):
        raise FileNotFoundError(missing)
    check_reachable(path)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(path, name))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{missing} ({type(error).__name__})") from error


def find_adapter_template(path: str | None) -> str | None:
    """Return the chat template that an adapter was trained with, as a file; None without one."""
    try:
        return str(find_adapter_file(path, "chat_template.jinja")) if path else None
    except FileNotFoundError:
        return None


def find_base_revision(adapter: str | None, base: str) -> str:
    """Return the revision of its base that an adapter was trained on; `main` where it names none.

    Args:
        adapter: Folder or Hub id.
        base: The model that it is put on; one of another name has its own revisions.
    """
    config = read_adapter_config(adapter) if adapter else {}
    is_same = config.get("base_model_name_or_path") == base
    return str(config.get("revision") or "main") if is_same else "main"


def looks_local(path: str) -> bool:
    """Tell a folder from a repository's name, which has at most one slash."""
    return path.startswith((".", "/", "~", "outputs/")) or Path(path).exists()


@cache
def check_reachable(repo_id: str, repo_type: str = "model") -> None:
    """End at once if a repository is not in the cache and the Hub cannot be asked for it.

    The libraries would try for a minute. What the Hub answers is left to them.

    Args:
        repo_id: `user/name` or `name`.
        repo_type: `model` or `dataset`.

    Raises:
        ConnectionError: If the Hub does not answer.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repo_id, repo_type=repo_type)
    if (Path(constants.HF_HUB_CACHE) / folder).is_dir():
        return
    try:
        HfApi().repo_info(repo_id, repo_type=repo_type, timeout=_TIMEOUT_S)
    except (HfHubHTTPError, ValueError):
        return
    except (OSError, _http_error()) as error:
        raise ConnectionError(
            f"{repo_id}: there is no such file or folder here, no such {repo_type} in the cache, "
            f"and the Hub cannot be reached ({type(error).__name__})."
        ) from None


def _http_error() -> type[Exception]:
    """Return what the Hub's client raises: httpx's error before version 2, httpx2's since."""
    from huggingface_hub import errors

    error: type[Exception] = vars(errors)["HTTPError"]
    return error
