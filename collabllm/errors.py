"""Errors with a sentence for the user; none of these texts carries a key or a goal."""


class CollabLLMError(Exception):
    """Base of our own errors."""


class IncompleteRunError(CollabLLMError):
    """A run ended before its work was done; the text says what is kept and how to go on."""


class SimulationError(CollabLLMError):
    """Base of the errors below, which can end a conversation early."""


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
