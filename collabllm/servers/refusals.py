"""Settings that models refuse: learned from their answers, then left out or renamed."""

import logging
from collections.abc import Mapping
from typing import Any

from collabllm.servers.failures import REPLACEMENTS, StatusError

logger = logging.getLogger(__name__)


class RefusedSettings:
    """What each model does not take; shared by all requests, of which many may be under way."""

    def __init__(self) -> None:
        self.by_model: dict[str, set[str]] = {}

    def adapt(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Copy a request, and leave out or rename what its model has refused before."""
        adapted = dict(request)
        for name in self.by_model.get(request["model"], ()):
            value = adapted.pop(name, None)
            replacement = REPLACEMENTS[name]
            if replacement and value is not None:
                adapted[replacement] = value
        return adapted

    def learn(self, sent: Mapping[str, Any], error: StatusError) -> bool:
        """Remember the setting that the model does not take; True if it was among those sent."""
        name = error.refused_setting(sent)
        if name is not None:
            self.add(sent["model"], name)
        return name is not None

    def add(self, model: str, name: str) -> None:
        """Remember a setting that a model does not take, and warn the first time."""
        refused = self.by_model.setdefault(model, set())
        if name not in refused:
            refused.add(name)
            instead = REPLACEMENTS[name]
            how = f"with {instead}" if instead else "without it"
            logger.warning("%s refuses %s; going on %s.", model, name, how)
