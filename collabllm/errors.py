"""What can end a conversation early; none of these texts carries a key or a goal."""


class SimulationError(Exception):
    """Base of the errors below."""


class ServerError(SimulationError):
    """A server refused or failed for good, after all retries."""


class ContextFullError(SimulationError):
    """The conversation does not fit into the model's context any more."""


class UnparseableError(SimulationError):
    """The simulated user's output could not be read, after all retries."""


class CostLimitError(SimulationError):
    """The cost limit is reached; nothing more is sent."""


class ReplayMissError(SimulationError):
    """A request is not in the cache that is replayed."""
