"""The Hugging Face Hub: check the right to write before a run, and upload when it is over."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

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
                "--push_to_hub true needs a Hugging Face token: run `hf auth login`, set HF_TOKEN, "
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
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise PermissionError(
            f"The Hub refused the token or repository ({status}). {_REMEDY}"
        ) from None
    except (OSError, httpx2.HTTPError) as error:
        raise ConnectionError(
            f"The Hub cannot be reached ({type(error).__name__}). {_REMEDY}"
        ) from None


def push_folder(folder: Path, hub: HubTarget, message: str, allow: Sequence[str]) -> None:
    """Upload files of a folder.

    Args:
        folder: What to upload.
        hub: From `prepare_hub`.
        message: Of the commit.
        allow: Names and patterns of the files to upload; all others stay.

    Raises:
        ConnectionError: If the upload fails; the local folder stays as it is.
    """
    import httpx2
    from huggingface_hub import HfApi

    try:
        HfApi().upload_folder(
            repo_id=hub.repo_id,
            repo_type=hub.repo_type,
            folder_path=folder,
            allow_patterns=list(allow),
            commit_message=message,
        )
    except (OSError, httpx2.HTTPError) as error:
        raise ConnectionError(
            f"The upload to {hub.repo_id} failed ({type(error).__name__}). All is safe in "
            f"{folder}; upload it with: hf upload {hub.repo_id} {folder} --repo-type "
            f"{hub.repo_type}"
        ) from None
    logger.info("Pushed to %s.", hub.repo_id)
