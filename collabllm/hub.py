"""The Hugging Face Hub: check the right to write before a run, and upload when it is over."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


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
    """Create the repository to push to, which proves the right to write it; None for no push.

    Args:
        push_to_hub: `auto` (push when a token is found), `true` or `false`.
        run_name: Name of the repository when `hub_model_id` is None.
        hub_model_id: `user/name` or `name`.
        private: Visibility of a new repository; private by default.
        repo_type: `model` or `dataset`.

    Raises:
        ValueError: If a push was asked for and there is no token.
        PermissionError: If the Hub refuses the token or the repository.
        ConnectionError: If the Hub cannot be reached.
    """
    import httpx2
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

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
    private = True if private is None else private
    remedy = "Check HF_TOKEN and its write permission, or use --push_to_hub false."
    try:
        api = HfApi()
        user = api.whoami()["name"]
        repo_id = hub_model_id or run_name
        repo_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise PermissionError(
            f"The Hub refused the token or repository ({status}). {remedy}"
        ) from (None)
    except (OSError, httpx2.HTTPError) as error:
        raise ConnectionError(
            f"The Hub cannot be reached ({type(error).__name__}). {remedy}"
        ) from None
    logger.info("The result will be pushed to %s.", repo_id)
    return HubTarget(repo_id, private, repo_type)


def push_folder(folder: Path, hub: HubTarget, message: str, ignore: Sequence[str] = ()) -> None:
    """Upload a folder.

    Args:
        folder: What to upload.
        hub: From `prepare_hub`.
        message: Of the commit.
        ignore: Patterns of files to leave out.

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
            ignore_patterns=list(ignore),
            commit_message=message,
        )
    except (OSError, httpx2.HTTPError) as error:
        raise ConnectionError(
            f"The upload to {hub.repo_id} failed ({type(error).__name__}). All is safe in "
            f"{folder}; upload it with: hf upload {hub.repo_id} {folder} --repo-type "
            f"{hub.repo_type}"
        ) from None
    logger.info("Pushed to %s.", hub.repo_id)
