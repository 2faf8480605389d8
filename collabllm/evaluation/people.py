"""Arms that people talk with on a page: its settings, and a desk at which the arms answer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from collabllm.evaluation.arms import Arm, ArmPool, ArmSettings
from collabllm.evaluation.desk import ArmDesk, Seat
from collabllm.evaluation.names import check_names
from collabllm.settings import setting
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.session import Session
from collabllm.simulation.settings import RunSettings

PEOPLE = "people"


@dataclass(kw_only=True)
class PageSettings(RunSettings, ArmSettings):
    """Who answers people on a page of this machine, and where it listens."""

    _argument_group_name = "the page"

    arm: list[str] = setting(
        [],
        "who answers, given several times: name=NAME[,lora_path=...][,system_prompt=...], or "
        "behind a server: name=...,model=...,base_url=...; default: the local model",
        repeated=True,
        metavar="name=NAME,...",
    )
    host: str = setting("127.0.0.1", "address to listen at", decides=False)
    port: int = setting(8000, "port to listen at; 0 takes any", least=0, most=65535, decides=False)
    public_url: str | None = setting(
        None,
        "address by which visitors reach the page behind a proxy",
        metavar="URL",
        decides=False,
    )

    @property
    def arms(self) -> list[Arm]:
        """Who answers."""
        given = self.arm if isinstance(self.arm, list) else [self.arm]
        return [Arm.read(one) for one in given or ["name=local"]]

    @property
    def host_names(self) -> list[str]:
        """Names of this server beside that of the host."""
        name = urlsplit(self.public_url or "").hostname
        return [name] if name else []


@contextmanager
def open_desk(settings: PageSettings) -> Iterator[ArmDesk]:
    """Give a desk at which the arms answer, and free models and clients at the end.

    Raises:
        FileNotFoundError: If an adapter is not there.
        ValueError: If a name does not fit, or an arm has several trainings.
    """
    check_names([arm.name for arm in settings.arms], [PEOPLE])
    local: dict[str, Seat] = {}
    remote: dict[str, Assistant] = {}
    with ExitStack() as stack:
        session = Session(settings, stack)
        pool = ArmPool(settings, session)
        for arm in settings.arms:
            info = arm.to_info(settings.hf_model_path)
            if len(info.lora_paths) > 1:
                raise ValueError(f"--arm {arm.name}: people talk with one training; name one.")
            seat = partial(pool.assistant, arm, next(iter(info.lora_paths), None))
            if arm.model or settings.assistant_kind == "vllm":
                remote[arm.name] = stack.enter_context(seat())
            else:
                local[arm.name] = seat
        desk = ArmDesk(local, remote, session.ledger)
        stack.callback(desk.close)
        yield desk
