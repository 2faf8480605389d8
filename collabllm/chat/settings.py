"""Settings of the chat page."""

from dataclasses import dataclass

from collabllm.settings import setting
from collabllm.simulation.settings import ModelSettings, RunSettings
from collabllm.web import is_loopback


@dataclass(kw_only=True)
class PageSettings(RunSettings, ModelSettings):
    """Who answers people on a page of this machine, and where it listens."""

    _argument_group_name = "the page"

    arm: list[str] | None = setting(
        None,
        "who answers, given several times: name=NAME[,lora_path=…][,system_prompt=…], or behind a "
        "server: name=…,model=…,base_url=…; by default the local model",
        repeated=True,
        metavar="name=NAME,…",
    )
    host: str = setting("127.0.0.1", "address to listen at", decides=False)
    port: int = setting(8000, "port to listen at; 0 takes any", least=0, most=65535, decides=False)
    host_name: list[str] | None = setting(
        None, "further name of this server, as in https://NAME", repeated=True, decides=False
    )


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
