"""Settings of models behind servers: the part that all who ask one share."""

from dataclasses import dataclass, fields

from collabllm.servers.client import Address
from collabllm.settings import Settings


@dataclass(kw_only=True)
class ServedSettings(Settings):
    """Settings of which some name models behind servers."""

    def __post_init__(self) -> None:
        """Take one address for one; refuse an address given twice."""
        super().__post_init__()
        for name in (field.name for field in fields(self)):
            urls = getattr(self, name)
            if not name.endswith("_base_url") or not isinstance(urls, list | tuple):
                continue
            if not urls or len(set(urls)) < len(urls):
                raise ValueError(f"--{name} needs one address or several different ones: {urls}.")
            setattr(self, name, list(urls) if len(urls) > 1 else urls[0])

    def models_behind_servers(self) -> list[tuple[str, Address, str]]:
        """Return model, address and role of each, for `Session.preflight`; parts add theirs."""
        return []
