"""Settings of the chat page."""

from dataclasses import dataclass

from collabllm.evaluation.people import PageSettings
from collabllm.settings import setting
from collabllm.web import is_loopback


@dataclass(kw_only=True)
class ChatSettings(PageSettings):
    """All that the chat page does."""

    _argument_group_name = "the chat"

    token: str | None = setting(
        None, "what visitors must know; needed where others reach the page", decides=False
    )
    max_talks: int = setting(200, "conversations kept at once", least=1, decides=False)
    max_replies: int = setting(16, "replies written at once", least=1, decides=False)
    output_dir: str = setting(
        "outputs/chat", "folder for the conversations", metavar="DIR", decides=False
    )

    def __post_init__(self) -> None:
        """Refuse a page that strangers reach and nobody guards."""
        super().__post_init__()
        if not is_loopback(self.host) and len(self.token or "") < 12:
            raise ValueError(
                f"--host {self.host} lets others reach the page: give --token of 12 letters or "
                "more, which is part of the address."
            )
