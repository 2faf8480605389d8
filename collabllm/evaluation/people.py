"""Arms that people talk with, from the settings of a page."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from collabllm.evaluation.arms import Arm, ArmPool
from collabllm.evaluation.desk import ArmDesk, Seat
from collabllm.evaluation.names import check_names
from collabllm.simulation.assistant import Assistant
from collabllm.simulation.session import Session

PEOPLE = "people"


@contextmanager
def open_desk(settings: Any, arms: list[Arm]) -> Iterator[ArmDesk]:
    """Give a desk at which the arms answer, and free models and clients at the end.

    Args:
        settings: Of the run and of the local model.
        arms: Of which each is one model: one adapter, no pattern of several.

    Raises:
        FileNotFoundError: If an adapter is not there.
        ValueError: If a name does not fit, or an arm has several trainings.
    """
    check_names([arm.name for arm in arms], [PEOPLE])
    local: dict[str, Seat] = {}
    remote: dict[str, Assistant] = {}
    with ExitStack() as stack:
        pool = ArmPool(settings, Session(settings, stack))
        for arm in arms:
            info = arm.to_info(settings.hf_model_path)
            if len(info.lora_paths) > 1:
                raise ValueError(f"--arm {arm.name}: people talk with one training; name one.")
            seat = partial(pool.assistant, arm, next(iter(info.lora_paths), None))
            if arm.model:
                remote[arm.name] = stack.enter_context(seat())
            else:
                local[arm.name] = seat
        desk = ArmDesk(local, remote)
        stack.callback(desk.close)
        yield desk
